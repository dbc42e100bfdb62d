"""Size, shape, colours, orientation and chroma of the pictures stay."""

from fractions import Fraction
from pathlib import Path

import pytest
from clips import Clip, Video, rotation
from promises import (
    ALL,
    FULL_709,
    HDR,
    LIMITED_601,
    P3,
    Promise,
    aspect,
    chroma,
    color,
    keep,
    matrix,
    matroska_matrix,
    monochrome,
    pixel_format,
    restored,
    run,
    size,
    times,
    video,
)
from standin import StandIn, inverted

SITED = (("chroma_sample_location", "topleft"),)


def sited(location: str) -> tuple[Video]:
    return video(options=(("chroma_sample_location", location),))


PICTURE = [
    Promise(
        "chroma at the top left", Clip(video=sited("topleft")), "out.mp4", (chroma("topleft"),)
    ),
    Promise(
        "chroma of AV1 at the top left",
        Clip(name="clip.mkv", video=video(codec="libsvtav1", options=(*SITED, ("preset", "10")))),
        "out.mp4",
        (chroma("topleft"),),
    ),
    Promise(
        "a title is no place of chroma",
        Clip(name="clip.mkv", metadata={"title": "\x55\xb7\x81\1\x55\xb8\x81\1"}),
        "out.mp4",
        (chroma("left"),),
    ),
    Promise(
        "chroma where a person wants it",
        Clip(video=sited("topleft")),
        "out.mp4",
        (chroma("bottom"),),
        {"encoder": "libx264", "encoder_options": (("chroma_sample_location", "bottom"),)},
    ),
    Promise("chroma at the left", Clip(video=sited("left")), "out.mp4", (chroma("left"),)),
    Promise(
        "chroma of a webcam's JPEGs",
        Clip(name="clip.avi", video=video(codec="mjpeg", pixel_format="yuvj420p")),
        "out.mkv",
        (chroma("center"),),
    ),
    Promise(
        "chroma of four columns",
        Clip(name="clip.avi", video=video(codec="mjpeg", pixel_format="yuvj422p")),
        "out.mp4",
        (pixel_format,),
    ),
    *(
        Promise(
            f"shown at {degrees} degrees{' and mirrored' if mirror else ''}, MP4",
            Clip(video=video(matrix=rotation(degrees, mirror=mirror))),
            "out.mp4",
            (times, matrix, size),
        )
        for degrees in (0, 90, 180, 270)
        for mirror in (False, True)
        if degrees or mirror
    ),
    Promise("rotation, MP4 to MOV", Clip(video=video(matrix=rotation(90))), "out.mov", (matrix,)),
    Promise(
        "rotation, MP4 to MKV",
        Clip(video=video(matrix=rotation(90))),
        "out.mkv",
        (matroska_matrix,),
    ),
    Promise(
        "rotation, MKV",
        Clip(name="clip.mkv", video=video(matrix=rotation(270))),
        "out.mkv",
        (matroska_matrix,),
    ),
    Promise(
        "rotation, MKV to MP4",
        Clip(name="clip.mkv", video=video(matrix=rotation(180))),
        "out.mp4",
        (matroska_matrix,),
    ),
    *(
        Promise(
            f"samples that are not square, {extension}",
            Clip(name=f"clip.{extension}", video=video(aspect=Fraction(4, 3))),
            f"out.{extension}",
            (times, aspect, size),
        )
        for extension in ("mp4", "mkv", "mov", "ts")
    ),
    Promise(
        "samples that are not square, MP4 to MKV",
        Clip(video=video(aspect=Fraction(16, 11))),
        "out.mkv",
        (aspect,),
    ),
    *(
        Promise(
            f"colour {name}, {extension}",
            Clip(name=f"clip.{extension}", video=video(color=tagged)),
            f"out.{extension}",
            (*ALL, color),
        )
        for name, tagged in (
            ("full range 709", FULL_709),
            ("601", LIMITED_601),
            ("HDR", HDR),
            ("P3", P3),
            ("untagged", None),
        )
        for extension in ("mp4", "mkv")
    ),
    Promise(
        "colour, VP9 in WebM",
        Clip(name="clip.webm", video=video(codec="libvpx-vp9", color=FULL_709)),
        "out.webm",
        (times, color),
    ),
    *(
        Promise(
            f"{name} through the usual encoder",
            Clip(name="clip.mkv", video=video(codec="ffv1", pixel_format=name)),
            "out.mp4",
            (*ALL, pixel_format, size),
        )
        for name in (
            *("yuv420p", "yuv422p", "yuv444p"),
            *("yuv420p10le", "yuv422p10le", "yuv444p10le"),
        )
    ),
    *(
        Promise(
            f"{name} through the usual encoder",
            Clip(name="clip.mkv", video=video(codec="ffv1", pixel_format=name)),
            "out.mp4",
            (*ALL, monochrome, size),
        )
        for name in ("gray", "gray10le")
    ),
    Promise(
        "full range of a camera's JPEGs",
        Clip(
            name="clip.avi",
            video=video(codec="mjpeg", pixel_format="yuvj422p", color=(2, 5, 1, 1)),
        ),
        "out.mp4",
        (*ALL, pixel_format, size),
    ),
    *(
        Promise(
            f"{width}x{height} {name} through the usual encoder",
            Clip(
                name="clip.mkv",
                video=video(codec="ffv1", pixel_format=name, width=width, height=height),
            ),
            output,
            (*ALL, size),
        )
        for width, height, name, output in (
            (63, 47, "yuv420p", "out.mp4"),
            (63, 48, "yuv422p", "out.mkv"),
            (62, 47, "yuv420p10le", "out.mkv"),
            (63, 47, "yuv420p", "out.webm"),
            (17, 33, "gray", "out.mp4"),
        )
    ),
]


@pytest.mark.parametrize("promise", PICTURE, ids=lambda promise: promise.name)
def test_pictures_stay(promise: Promise, tmp_path: Path) -> None:
    keep(promise, tmp_path)


def test_the_restored_pictures_are_written(tmp_path: Path) -> None:
    case = run(Promise("", Clip(), "out.mp4", (), restorer=lambda: StandIn(inverted)), tmp_path)
    times(case)
    restored(case)
