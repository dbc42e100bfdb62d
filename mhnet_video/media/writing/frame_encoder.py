"""From frames to the packets of an output's video stream."""

from dataclasses import replace
from typing import Any

import av
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from mhnet_video.frame import Frame
from mhnet_video.media.encoders.encoder import EncoderSettings, open_encoder
from mhnet_video.media.encoders.encoder_surfaces import Surfaces
from mhnet_video.media.frames.converter import Converter
from mhnet_video.media.frames.device_frames import on_host
from mhnet_video.media.frames.pixel_formats import layout_of, planar_twin
from mhnet_video.media.output_file import OutputFile
from mhnet_video.media.reading.source import Packet
from mhnet_video.media.writing.frame_fidelity import FrameChanges
from mhnet_video.media.writing.output_clock import OutputClock
from mhnet_video.media.writing.write_errors import encoder_error


class FrameEncoder:
    """Encodes frames, whatever their size and pixels, as the settings say.

    Args:
        settings: The encoder's.
        first: The first frame; those of another matrix or range are converted to it.
        clock: Gives the frames their times.
        output: Where the packets will go, for errors.
        surfaces: Hands frames over in the GPU's memory; None where they are on the host.
    """

    def __init__(
        self,
        settings: EncoderSettings,
        first: Frame,
        clock: OutputClock,
        output: OutputFile,
        surfaces: Surfaces | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        # each frame says what it is to x264, which writes it down where it was opened for fields
        marks_each = settings.marks_fields and settings.encoder == "libx264"
        target = layout_of(planar_twin(settings.pixel_format))
        self.changes = FrameChanges(
            first,
            settings.encoder,
            marks_fields=marks_each,
            has_alpha=target is None or target.has_alpha,
        )
        """How the frames differ from the first."""
        self._output = output
        self._surfaces = surfaces
        self._color_tags = {name: first.tags.get(name, 0) for name in ("colorspace", "color_range")}
        is_rgb = first.layout.kind == "rgb"
        self._samples = settings.samples or (None if is_rgb else (first.matrix, first.full_range))
        wanted = surfaces.host_format if surfaces else settings.pixel_format
        self._converter = Converter(wanted, settings.width, settings.height, samples=self._samples)
        self._target: Any = None
        self._last_picture: av.VideoFrame | None = None
        # the frame that the encoder was opened with, and its packets
        self._early: tuple[Frame, list[Packet]] | None = None

    def set_up(self, context: VideoCodecContext) -> None:
        """Tell an encoder everything that it must know before it opens."""
        settings = self.settings
        if self._surfaces is not None:
            settings = replace(settings, pixel_format=self._surfaces.pixel_format)
        settings.apply(context)

    def open(self, target: VideoStream | VideoCodecContext, first: Frame) -> None:
        """Open an encoder that is set up.

        Args:
            target: What encodes: a stream of a container, or an encoder alone.
            first: The frame that will be encoded first.

        Raises:
            FFmpegError: It does not open.
            WriteError: It does not take pictures in the GPU's memory.
        """
        self._target = target
        if self._surfaces is None:
            context: Any = getattr(target, "codec_context", target)
            open_encoder(context)
        else:
            # it learns from its first picture where in the GPU's memory pictures are
            self._early = first, self.encode(first)

    def encode(self, frame: Frame) -> list[Packet]:
        """The packets that are ready after a frame, and after its repetitions before it.

        Raises:
            WriteError: The encoder does not take it.
        """
        early, self._early = self._early, None
        if early is not None and early[0] is frame:
            return early[1]
        packets: list[Packet] = []
        try:
            for pts, longest in self.clock.repeats_before(frame):
                last: Any = self._last_picture
                last.pts, last.duration = pts, min(last.duration, longest)
                packets += self._target.encode(last)
            packets += self._target.encode(self._picture(frame))
        except (FFmpegError, OSError, ValueError) as error:
            raise encoder_error(self._output, self.settings.encoder, error) from error
        return packets

    def flush(self) -> list[Packet]:
        """The packets that the encoder still holds, at the end.

        Raises:
            WriteError: It fails.
        """
        try:
            packets: list[Packet] = self._target.encode(None)
        except (FFmpegError, OSError, ValueError) as error:
            raise encoder_error(self._output, self.settings.encoder, error) from error
        return packets

    def _picture(self, frame: Frame) -> av.VideoFrame:
        """FFmpeg's picture of a frame, at its time in the output."""
        self.changes.see(frame)
        pts, duration = self.clock.place(frame)
        is_as_first = self._samples in (None, (frame.matrix, frame.full_range))
        if self._surfaces is not None and is_as_first and self._surfaces.takes(frame):
            picture = self._surfaces.picture(frame)
        else:
            picture = self._converter.convert(on_host(frame))
        if not is_as_first:
            # some encoders write down what each picture says of itself
            picture.colorspace = self._color_tags["colorspace"]
            picture.color_range = self._color_tags["color_range"]
        picture.pts = pts
        picture.time_base = self.clock.time_base
        picture.duration = duration
        picture.pict_type = 0
        self._last_picture = picture
        return picture
