"""Size, shape, colours, orientation and chroma of the pictures stay."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
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
    VP9,
    Case,
    Promise,
    aspect,
    chroma,
    color,
    keep,
    lost,
    matrix,
    matroska_matrix,
    monochrome,
    nothing_lost,
    pixel_format,
    restored,
    run,
    size,
    times,
    video,
)
from standin import StandIn, inverted

from mhnet_video.media.formats.matroska_aspect import set_aspects

SITED = (("chroma_sample_location", "topleft"),)


def sited(location: str) -> tuple[Video]:
    return video(options=(("chroma_sample_location", location),))


def second_aspect(case: Case) -> None:
    """The other video's samples are as wide as they were, too."""
    before, after = (item.of("video")[1].aspect for item in (case.source, case.output))
    assert after == before != 1


def elements(content: bytes, place: int) -> Iterator[tuple[bytes, int, bytes]]:
    """Number, place and contents of the elements of a Matroska from a place on."""
    while place < len(content):
        start, number = place, content[place : place + 9 - content[place].bit_length()]
        place += len(number)
        length = 9 - content[place].bit_length()
        size = int.from_bytes(content[place : place + length], "big") & (1 << 7 * length) - 1
        place += length + size
        yield number, start, content[place - size : place]


def head(case: Case) -> None:
    """What the head of a Matroska names is where it says, and its checksums are right."""
    content = case.output.path.read_bytes()
    first = content.index(bytes.fromhex("114d9b74"))
    inside = list(elements(content, first))
    places = {start - first: number for number, start, _ in inside}
    named = [
        dict((n, b) for n, _, b in elements(body, 0))
        for number, _, body in elements(inside[0][2], 0)
        if number == bytes.fromhex("4dbb")
    ]
    assert len(named) >= 4
    for each in named:
        assert places[int.from_bytes(each[b"\x53\xac"], "big")] == each[b"\x53\xab"]
    for _, _, body in inside:
        if body[:2] == b"\xbf\x84":
            assert body[2:6] == zlib.crc32(body[6:]).to_bytes(4, "little")


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
            f"samples that are not square, by {encoder}, {name}",
            Clip(
                video=(
                    Video(width=128, height=96, aspect=Fraction(3, 2)),
                    replace(VP9, aspect=Fraction(5, 4), seed=1),
                )
            ),
            name,
            (times, aspect, second_aspect, head, nothing_lost),
            {"encoder": encoder},
        )
        for encoder, name in (
            *(("libx264", "out.mkv"), ("ffv1", "out.mkv"), ("libsvtav1", "out.mkv")),
            ("libvpx-vp9", "out.webm"),
        )
    ),
    Promise(
        "samples and colours by FFV1, AVI: no place",
        Clip(video=video(aspect=Fraction(4, 3), color=FULL_709)),
        "out.avi",
        (size, lost("samples, 4:3", "ffv1"), lost("colours: range, matrix", "ffv1")),
        {"encoder": "ffv1"},
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


def test_a_file_without_room_for_the_shape_of_samples_stays(tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip.mkv"):
        path = Clip(name=name).make(tmp_path)
        content = path.read_bytes().replace(b"\xec\x01", b"\xed\x01")
        path.write_bytes(content)
        assert not set_aspects(path, {1: Fraction(4, 3)}, is_webm=False)
        assert path.read_bytes() == content


def test_the_restored_pictures_are_written(tmp_path: Path) -> None:
    case = run(Promise("", Clip(), "out.mp4", (), restorer=lambda: StandIn(inverted)), tmp_path)
    times(case)
    restored(case)
