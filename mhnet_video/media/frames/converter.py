"""Brings frames to the size and the pixel format of an encoder."""

from dataclasses import replace

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from mhnet_video.color_spaces import (
    FULL_RANGE,
    LIMITED_RANGE,
    MATRIX_NUMBERS,
    usual_matrix,
)
from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.media.frames.pixel_formats import layout_of, picture_of, reformatted, with_samples

_INTERPOLATION = int(
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
)
"""How swscale converts."""


class Converter:
    """Brings frames to the one size and pixel format that an encoder has been opened with.

    Args:
        pixel_format: FFmpeg's name.
        width: Width, in pixels.
        height: Height, in pixels.
        samples: Matrix and whether the range is full, where YUV must be so; None for as it is.
    """

    def __init__(
        self,
        pixel_format: str,
        width: int,
        height: int,
        *,
        samples: tuple[str, bool] | None = None,
    ) -> None:
        self._samples = samples
        self._format = pixel_format
        self._layout = layout_of(pixel_format)
        self._width = width
        self._height = height
        self._reformatter = VideoReformatter()

    def convert(self, frame: Frame) -> av.VideoFrame:
        """FFmpeg's picture of a frame, changed no more than the encoder demands."""
        target = self._layout
        is_as_large = (frame.width, frame.height) == (self._width, self._height)
        if is_as_large and target is not None and self._has_samples(frame):
            frame = finer(frame, target)
            if frame.layout.name == target.name:
                picture = picture_of(frame)
                if picture.format.name == self._format:
                    return picture
                # `yuvj420p` and `yuv420p` differ in name only
                copy = av.VideoFrame(self._width, self._height, self._format)
                return with_samples(copy, frame.planes, range(len(frame.planes)))
        return self._scaled(frame)

    def _has_samples(self, frame: Frame) -> bool:
        if self._samples is None or frame.layout.kind == "rgb":
            return True
        matrix, is_full = self._samples
        return frame.full_range == is_full and (
            frame.layout.kind == "gray" or frame.matrix == matrix
        )

    def _scaled(self, frame: Frame) -> av.VideoFrame:
        picture = picture_of(frame)
        if "yuvj" in picture.format.name and not frame.full_range:
            # the range changed in the middle; swscale goes by the name, whatever its options say
            plain = av.VideoFrame(frame.width, frame.height, frame.layout.name)
            picture = with_samples(plain, frame.planes, range(len(frame.planes)))
        is_rgb = av.VideoFormat(self._format, 16, 16).is_rgb
        matrix = MATRIX_NUMBERS.get(frame.matrix, MATRIX_NUMBERS["bt601"])
        source = {"src_color_range": FULL_RANGE if frame.full_range else LIMITED_RANGE}
        target = {"dst_color_range": source["src_color_range"]}
        is_other = is_rgb != (frame.layout.kind == "rgb")
        if self._samples is not None and not is_rgb:
            wanted, is_full = self._samples
            is_other = True
            source["src_colorspace"] = matrix
            target["dst_colorspace"] = MATRIX_NUMBERS.get(wanted, MATRIX_NUMBERS["bt601"])
            target["dst_color_range"] = FULL_RANGE if is_full else LIMITED_RANGE
        elif is_other:
            if is_rgb:
                source["src_colorspace"] = matrix
                target["dst_color_range"] = FULL_RANGE
            else:
                target["dst_colorspace"] = MATRIX_NUMBERS[usual_matrix(frame.height)]
                target["dst_color_range"] = FULL_RANGE if "yuvj" in self._format else LIMITED_RANGE
        elif is_rgb:
            source = {"src_color_range": FULL_RANGE}
            target = {"dst_color_range": FULL_RANGE}
        return reformatted(
            self._reformatter,
            picture,
            hides_matrix=is_other,
            width=self._width,
            height=self._height,
            format=self._format,
            interpolation=_INTERPOLATION,
            **source,
            **target,
        )


def finer(frame: Frame, target: PixelLayout) -> Frame:
    """The frame with its chroma repeated, or made for grey, where that is all there is to do."""
    source = frame.layout
    if source.name == target.name or source.bits != target.bits or target.kind != "yuv":
        return frame
    if source.has_alpha != target.has_alpha:
        if target.has_alpha or source.kind == "rgb":
            return frame
        frame = replace(frame, planes=frame.planes[:-1])
    if source.kind == "gray":
        height = -(-frame.height >> target.chroma_shift_y)
        width = -(-frame.width >> target.chroma_shift_x)
        neutral = np.full((height, width), 1 << (source.bits - 1), frame.planes[0].dtype)
        return replace(frame, planes=(frame.planes[0], neutral, neutral), layout=target)
    repeat_x = source.chroma_shift_x - target.chroma_shift_x
    repeat_y = source.chroma_shift_y - target.chroma_shift_y
    if source.kind != "yuv" or repeat_x < 0 or repeat_y < 0:
        return frame
    height = -(-frame.height >> target.chroma_shift_y)
    width = -(-frame.width >> target.chroma_shift_x)
    chroma = [
        plane.repeat(1 << repeat_y, axis=0)[:height].repeat(1 << repeat_x, axis=1)[:, :width]
        for plane in frame.planes[1:3]
    ]
    return replace(frame, planes=(frame.planes[0], *chroma, *frame.planes[3:]), layout=target)
