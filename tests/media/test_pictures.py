"""Photographs and other single pictures: their way up, their colours, what they say."""

import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import Clip, Video, copy, picture
from PIL import Image
from standin import StandIn

from mhnet_video.config import RestoreConfig
from mhnet_video.errors import ReadError, WriteError
from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.media.fidelity import Notes
from mhnet_video.media.frames.image_metadata import (
    descriptions_in,
    is_cut_short,
    with_segments_of,
)
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.writing.frame_fidelity import FrameChanges, report_pixels
from mhnet_video.media.writing.writer import VideoWriter
from mhnet_video.pipelines.restore import restore_video

_ONE, _UNIT = 1 << 16, 1 << 30
TURNS = [
    (a * _ONE, b * _ONE, 0, c * _ONE, d * _ONE, 0, 0, 0, _UNIT)
    for a, b, c, d in [
        *[(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)],
        *[(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)],
    ]
]


def exif(orientation: int) -> bytes:
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + bytes(4)
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def test_a_photograph_keeps_what_it_says_about_itself(tmp_path: Path) -> None:
    plain = picture("mjpeg", 32, 32)
    turned = plain[:2] + exif(6) + plain[2:]
    (tmp_path / "a.jpg").write_bytes(turned)
    copy(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert exif(6) in (tmp_path / "b.jpg").read_bytes()
    with av.open(str(tmp_path / "b.jpg")) as container:
        assert next(container.decode(video=0)).rotation == -90
    with VideoReader(tmp_path / "a.jpg") as reader:
        assert next(i for i in reader if isinstance(i, Frame)).rotation == 90


def with_chunk(png: bytes, kind: bytes, contents: bytes) -> bytes:
    """A PNG with one more chunk before its samples."""
    body = kind + contents
    chunk = struct.pack(">I", len(contents)) + body + struct.pack(">I", zlib.crc32(body))
    at = png.index(b"IDAT") - 4
    return png[:at] + chunk + png[at:]


@pytest.mark.parametrize("height", [96, 720])
@pytest.mark.parametrize("source", ["a.png", "a.jpg", "444.jpg", "grey.jpg", "grey.png", "a.webp"])
@pytest.mark.parametrize("output", ["b.jpg", "b.png", "b.webp", "b.tif", "b.bmp"])
def test_pictures_have_their_colours_in_other_programs(
    source: str, output: str, height: int, tmp_path: Path
) -> None:
    colors = [
        (30, 30, 200),
        (30, 200, 30),
        (200, 30, 30),
        (250, 250, 250),
        (5, 5, 5),
        (60, 120, 200),
    ]
    samples = np.repeat(np.uint8(colors)[None], 32, axis=1).repeat(height, axis=0)
    if "grey" in source:
        samples = cv2.cvtColor(samples, cv2.COLOR_BGR2GRAY)
    options = [cv2.IMWRITE_JPEG_QUALITY, 98]
    if source == "444.jpg":
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    if source.endswith(".webp"):
        options = [cv2.IMWRITE_WEBP_QUALITY, 98]  # above 100 it would be lossless
    cv2.imwrite(str(tmp_path / source), samples, options if "png" not in source else [])
    before = cv2.imread(str(tmp_path / source)).astype(float)
    copy(tmp_path / source, tmp_path / output)
    after = cv2.imread(str(tmp_path / output)).astype(float)
    # in the middle of the bars, where no chroma is shared
    assert np.abs(after - before)[:, 16::32].max() < 8
    assert np.abs(after - before)[:, 16::32].mean() < 1.5


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "rgb24"])
@pytest.mark.parametrize("matrix", TURNS, ids=str)
def test_what_would_lie_on_its_side_is_turned(
    pixel_format: str, matrix: tuple[int, ...], tmp_path: Path
) -> None:
    codec = "libx264rgb" if pixel_format == "rgb24" else "libx264"
    options = (("crf", "1"),)
    video = Video(
        times=(0,), codec=codec, pixel_format=pixel_format, matrix=matrix, options=options
    )
    path = Clip(video=(video,)).make(tmp_path)
    writer = copy(path, tmp_path / "out.png")
    assert "rotation: the picture was turned upright" in writer.notes.kept
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(float)
    a, b, _, c, d = (np.sign(each) for each in matrix[:5])
    height, width = stored.shape[:2]
    shown = np.zeros((width, height, 3) if b else stored.shape)
    y, x = np.mgrid[:height, :width]
    to_x, to_y = a * x + c * y, b * x + d * y
    shown[to_y - to_y.min(), to_x - to_x.min()] = stored
    found = cv2.imread(str(tmp_path / "out.png"))[..., ::-1].astype(float)
    assert found.shape == shown.shape
    error, *others = (np.abs(each - shown).mean() for each in (found, found[::-1], found[:, ::-1]))
    assert error < 15 and error < min(others) / 2


def test_what_a_photograph_says_is_kept_or_told(tmp_path: Path) -> None:
    plain = picture("mjpeg", 32, 16)
    (tmp_path / "a.jpg").write_bytes(plain[:2] + exif(6) + plain[2:])
    for name, is_kept in [("b.png", True), ("c.jpg", True), ("d.webp", False), ("e.tif", False)]:
        writer = copy(tmp_path / "a.jpg", tmp_path / name)
        told = "EXIF (camera, time and place): not written into this kind of picture"
        assert (told in writer.notes.lost) is not is_kept
        with av.open(str(tmp_path / name)) as container:
            frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == ((32, 16) if is_kept else (16, 32))
        assert frame.rotation == (-90 if is_kept else 0)
    # what the picture file was made of is no photograph any more
    writer = copy(tmp_path / "b.png", tmp_path / "f.jpg")
    with av.open(str(tmp_path / "f.jpg")) as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height, frame.rotation) == (16, 32, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_stand_upright_in_every_format(orientation: int, tmp_path: Path) -> None:
    plain = picture("mjpeg", 96, 64)
    source = tmp_path / "a.jpg"
    source.write_bytes(plain[:2] + exif(orientation) + plain[2:])
    wanted = cv2.imread(str(source)).astype(float)  # which looks at the orientation
    # a PNG that has it too, from which nothing is taken but the file
    copy(source, tmp_path / "b.png")
    for path in (source, tmp_path / "b.png"):
        for name in ("c.webp", "c.tif", "c.bmp", "c.jpg"):
            copy(path, tmp_path / name, overwrite=True)
            found = cv2.imread(str(tmp_path / name)).astype(float)
            assert found.shape == wanted.shape, name
            error, *others = (
                np.abs(f - wanted).mean() for f in (found, found[::-1], found[:, ::-1])
            )
            assert error < min(others) / 2, name
    config = RestoreConfig(compare=True, overwrite=True)
    for name in ("d.png", "d.jpg", "d.webp"):
        restore_video(source, tmp_path / name, config, restorer=StandIn())
        found = cv2.imread(str(tmp_path / name)).astype(float)
        both = np.concatenate([wanted, wanted], axis=1)
        assert found.shape == both.shape, name
        assert np.abs(found - both).mean() < np.abs(found[::-1] - both).mean() / 2, name


def test_what_a_tiff_says_is_told_where_it_goes(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture("mjpeg", 32, 16))
    copy(tmp_path / "a.jpg", tmp_path / "b.tif")
    assert not copy(tmp_path / "b.tif", tmp_path / "c.bmp").notes.lost
    tiff = bytearray((tmp_path / "b.tif").read_bytes())
    start = int.from_bytes(tiff[4:8], "little")
    tiff[start + 2 : start + 4] = (0x0110).to_bytes(2, "little")
    assert descriptions_in(bytes(tiff)) == ["EXIF (camera, time and place)"]
    assert descriptions_in(bytes(tiff[: start + 1])) == descriptions_in(b"II*\0") == []


def test_a_turned_picture_has_turned_samples(tmp_path: Path) -> None:
    video = Video(times=(0,), aspect=Fraction(4, 3), matrix=TURNS[0])
    path = Clip(video=(video,)).make(tmp_path)
    copy(path, tmp_path / "out.png")
    with av.open(str(tmp_path / "out.png")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(3, 4)


def test_a_png_may_have_a_colour_profile_with_a_name(tmp_path: Path) -> None:
    """In a process of its own: what is wrong here ends it."""
    samples = np.full((48, 64, 3), 90, np.uint8)
    profile = b"any name\0\0" + zlib.compress(bytes(range(200)))
    png = with_chunk(cv2.imencode(".png", samples)[1].tobytes(), b"iCCP", profile)
    (tmp_path / "in.png").write_bytes(png)
    code = (
        f"import gc, sys; sys.path[:] = {sys.path!r}; from clips import copy\n"
        "for name in ('out.png', 'out.jpg', 'out.mp4'): copy('in.png', name)\n"
        "gc.collect(); print('done')"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert b"iCCP" in (tmp_path / "out.png").read_bytes()


def test_a_png_keeps_its_texts_and_resolution(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)
    plain = cv2.imencode(".png", samples)[1].tobytes()
    resolution = struct.pack(">IIB", 11811, 11811, 1)
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0<x/>"
    chunks = [(b"pHYs", resolution), (b"tEXt", b"Title\0rain"), (b"iTXt", xmp)]
    png = plain
    for kind, contents in chunks:
        png = with_chunk(png, kind, contents)
    (tmp_path / "in.png").write_bytes(png)
    assert not copy(tmp_path / "in.png", tmp_path / "out.png").notes.lost
    out = (tmp_path / "out.png").read_bytes()
    for kind, contents in chunks:
        assert out.count(kind) == 1
        assert kind + contents + struct.pack(">I", zlib.crc32(kind + contents)) in out
    assert np.array_equal(cv2.imread(str(tmp_path / "out.png")), samples)
    # other kinds of pictures have no place for them
    lost = copy(tmp_path / "in.png", tmp_path / "out.jpg").notes.lost
    assert any(line.startswith("texts, XMP") for line in lost)
    (tmp_path / "plain.png").write_bytes(plain)
    assert not copy(tmp_path / "plain.png", tmp_path / "out.png", overwrite=True).notes.lost
    assert b"tEXt" not in (tmp_path / "out.png").read_bytes()


def test_segments_come_from_jpegs_only() -> None:
    plain = picture("mjpeg")
    assert with_segments_of(b"GIF89a", plain) == plain
    assert with_segments_of(plain[:2] + exif(1) + plain[2:], b"\x89PNG") == b"\x89PNG"


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def test_fill_bytes_before_a_marker_hide_nothing(tmp_path: Path) -> None:
    plain = picture("mjpeg", 32, 16)
    profile = segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(16) + b"RGB " + bytes(100))
    filled = plain[:2] + b"\xff\xff" + exif(6) + b"\xff" + profile + b"\xff\xff" + plain[2:]
    (tmp_path / "a.jpg").write_bytes(filled)
    writer = copy(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert not writer.notes.lost
    written = (tmp_path / "b.jpg").read_bytes()
    assert exif(6) in written and profile in written
    assert len(descriptions_in(filled)) == 2
    assert is_cut_short(filled[:-2]) and not is_cut_short(filled)


def webp_with(kind: bytes, contents: bytes) -> bytes:
    """A WebP with one more chunk."""
    content = picture("libwebp")[12:]
    head = struct.pack("<4sI4s3s3s", b"VP8X", 10, b"\4\0\0\0", b"\x1f\0\0", b"\x1f\0\0")
    rest = head + content + struct.pack("<4sI", kind, len(contents)) + contents
    return struct.pack("<4sI4s", b"RIFF", 4 + len(rest), b"WEBP") + rest


def test_xmp_is_kept_in_a_png_and_told_elsewhere(tmp_path: Path) -> None:
    plain, told = picture("mjpeg", 32, 16), "XMP (ratings and edits): not written into this kind"
    xmp = b'<x:xmpmeta><a xmp:Rating="4" tiff:Orientation="6"/></x:xmpmeta>\n'
    photograph = plain[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp) + plain[2:]
    (tmp_path / "a.jpg").write_bytes(photograph)
    (tmp_path / "a.webp").write_bytes(webp_with(b"XMP ", xmp))
    for name in ("a.jpg", "a.webp"):
        assert not copy(tmp_path / name, tmp_path / "b.png", overwrite=True).notes.lost
        text = b'XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta><a xmp:Rating="4"/></x:xmpmeta>\n'
        chunk = b"iTXt" + text
        chunk += struct.pack(">I", zlib.crc32(chunk))
        assert (tmp_path / "b.png").read_bytes().count(chunk) == 1
        for output in ("c.webp", "c.tif"):
            lost = copy(tmp_path / name, tmp_path / output, overwrite=True).notes.lost
            assert any(line.startswith(told) for line in lost)
    for name in ("a.webp", "b.png"):
        lost = copy(tmp_path / name, tmp_path / "c.jpg", overwrite=True).notes.lost
        assert any(line.startswith(told) for line in lost)


def test_what_else_a_photograph_says_is_told(tmp_path: Path) -> None:
    plain = picture("mjpeg", 32, 16)
    caption = segment(0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\0\0\0\4rain")
    depth = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(64))
    comment = segment(0xFE, b"by the sea")
    (tmp_path / "a.jpg").write_bytes(plain[:2] + caption + depth + comment + plain[2:])
    assert not copy(tmp_path / "a.jpg", tmp_path / "b.jpg").notes.lost
    for name in ("b.png", "b.mkv"):
        (lost,) = copy(tmp_path / "a.jpg", tmp_path / name).notes.lost
        for what in ("IPTC", "long XMP", "comment"):
            assert what in lost


def pages(count: int) -> bytes:
    """A TIFF of grey pages."""
    pictures = [np.full((32, 48), 40 * each, np.uint8) for each in range(count)]
    return cv2.imencodemulti(".tif", pictures)[1].tobytes()


FURTHER = "further pictures of the file: the first one is restored"


def test_further_pictures_of_a_file_are_told(tmp_path: Path) -> None:
    first = picture("mjpeg", 32, 16)
    # the index of the pictures, as telephones write it: with the place of the second one
    both = first[:2] + segment(0xE2, b"MPF\0II*\0" + bytes(80)) + first[2:] + picture("mjpeg")
    (tmp_path / "a.jpg").write_bytes(both)
    for name in ("b.jpg", "b.png"):
        assert copy(tmp_path / "a.jpg", tmp_path / name).notes.lost == [FURTHER]
        assert b"MPF\0" not in (tmp_path / name).read_bytes()
    for count in (1, 3):
        (tmp_path / "a.tif").write_bytes(pages(count))
        for name in (f"{count}.png", f"{count}.mp4"):
            lost = copy(tmp_path / "a.tif", tmp_path / name).notes.lost
            assert (FURTHER in lost) == (count > 1)


def test_further_pictures_are_told_of_a_video_too(tmp_path: Path) -> None:
    plain = picture("mjpeg", 320, 240)
    plain = plain[:2] + exif(1) + plain[2:]  # or FFmpeg takes two from a pipe for a video
    both = plain[:2] + segment(0xE2, b"MPF\0II*\0" + bytes(80)) + plain[2:] + plain
    for content, wanted in ((plain, []), (both, [FURTHER])):
        (tmp_path / "a.jpg").write_bytes(content)
        lost = copy(tmp_path / "a.jpg", tmp_path / "a.mp4", overwrite=True).notes.lost
        assert [line for line in lost if "further" in line] == wanted
        assert (FURTHER in run_piped(content, tmp_path / f"{len(content)}.mkv")) == bool(wanted)


def run_piped(content: bytes, output: Path) -> str:
    """What the command says of a picture on standard input."""
    code = (
        "import sys; from clips import copy\n"
        f"print(copy('-', {str(output)!r}, overwrite=True).notes.lost)"
    )
    words = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]
    done = subprocess.run(words, input=content, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


@pytest.mark.parametrize("orientation", [1, 5, 6])
def test_a_picture_from_a_pipe_is_as_one_of_a_file(orientation: int, tmp_path: Path) -> None:
    plain = picture("mjpeg", 320, 240)  # small ones in a row FFmpeg takes for a video
    profile = segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(16) + b"RGB " + bytes(100))
    further = segment(0xE2, b"MPF\0II*\0" + bytes(80))
    for added in (profile, profile + further):
        source = plain[:2] + exif(orientation) + added + plain[2:]
        source += plain if further in added else b""
        (tmp_path / "a.jpg").write_bytes(source)
        for name in ("b.jpg", "b.png", "b.webp"):
            lost = copy(tmp_path / "a.jpg", tmp_path / name, overwrite=True).notes.lost
            assert run_piped(source, tmp_path / f"piped-{name}") == str(lost)
            assert (tmp_path / name).read_bytes() == (tmp_path / f"piped-{name}").read_bytes()


def test_what_a_png_from_a_pipe_says_is_kept(tmp_path: Path) -> None:
    png = with_chunk(picture("png"), b"tEXt", b"Title\0rain")
    assert run_piped(png, tmp_path / "a.png") == "[]"
    assert b"Title\0rain" in (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize("space", [b"RGB ", b"GRAY", b"CMYK"])
@pytest.mark.parametrize("is_grey", [False, True])
def test_profiles_of_other_samples_are_left_out(
    space: bytes, is_grey: bool, tmp_path: Path
) -> None:
    samples = np.full((48, 64) if is_grey else (48, 64, 3), 90, np.uint8)
    jpeg, png = (cv2.imencode(kind, samples)[1].tobytes() for kind in (".jpg", ".png"))
    profile = bytes(16) + space + bytes(300)
    jpeg = jpeg[:2] + segment(0xE2, b"ICC_PROFILE\0\1\1" + profile) + jpeg[2:]
    (tmp_path / "a.jpg").write_bytes(jpeg)
    (tmp_path / "a.png").write_bytes(with_chunk(png, b"iCCP", b"a\0\0" + zlib.compress(profile)))
    told = "colour profile: it would not be true of the output"
    for source, output in [("a.jpg", "b.jpg"), ("a.jpg", "b.png"), ("a.png", "b.png")]:
        # FFmpeg makes JPEGs with colours of grey
        own = b"GRAY" if is_grey and output == "b.png" else b"RGB "
        lost = copy(tmp_path / source, tmp_path / output, overwrite=True).notes.lost
        assert (told in lost) == (space != own), (source, output, lost)
        content = (tmp_path / output).read_bytes()
        assert (b"ICC_PROFILE" in content or b"iCCP" in content) == (space == own)
        assert cv2.imread(str(tmp_path / output)).shape == (48, 64, 3)


def test_no_thumbnail_shows_the_rain(tmp_path: Path) -> None:
    plain = picture("mjpeg", 32, 16)
    tiff = exif(6)[10:]
    entry = struct.pack("<HHIHH", 0x0103, 3, 1, 6, 0)
    thumbnail = struct.pack("<H", 1) + entry + bytes(4)
    with_thumbnail = tiff[:-4] + struct.pack("<I", len(tiff)) + thumbnail
    (tmp_path / "a.jpg").write_bytes(
        plain[:2] + segment(0xE1, b"Exif\0\0" + with_thumbnail) + plain[2:]
    )
    (tmp_path / "a.png").write_bytes(with_chunk(picture("png"), b"eXIf", with_thumbnail))
    for source, output in [("a.jpg", "b.jpg"), ("a.jpg", "b.png"), ("a.png", "b.png")]:
        lost = copy(tmp_path / source, tmp_path / output, overwrite=True).notes.lost
        assert [line.partition(":")[0] for line in lost] == ["thumbnail"]
        # the rest is there, and whole
        with VideoReader(tmp_path / output) as reader:
            assert next(i for i in reader if isinstance(i, Frame)).rotation == 90
        assert descriptions_in((tmp_path / output).read_bytes()) == [
            "EXIF (camera, time and place)"
        ]


def test_a_jpeg_keeps_its_resolution(tmp_path: Path) -> None:
    samples = np.full((48, 64, 3), 90, np.uint8)
    plain = cv2.imencode(".jpg", samples)[1].tobytes()
    assert plain[6:11] == b"JFIF\0"
    resolution = struct.pack(">BHH", 1, 300, 300)
    (tmp_path / "a.jpg").write_bytes(plain[:13] + resolution + plain[18:])
    copy(tmp_path / "a.jpg", tmp_path / "b.jpg")
    content = (tmp_path / "b.jpg").read_bytes()
    assert content[13:18] == resolution and content.count(b"JFIF\0") == 1
    assert cv2.imread(str(tmp_path / "b.jpg")).shape == samples.shape


def test_a_recording_of_fragments_is_no_picture(tmp_path: Path) -> None:
    """Its header tells of the frames of the first fragment only: of one."""
    clip = Clip(options=(("movflags", "frag_every_frame+empty_moov"),)).make(tmp_path)
    with pytest.raises(WriteError, match=r"is a picture, but .* a video; end it in \.mp4"):
        copy(clip, tmp_path / "out.png")
    assert [path.name for path in tmp_path.iterdir()] == [clip.name]
    (tmp_path / "in.jpg").write_bytes(picture())
    with pytest.raises(WriteError, match="is written by the encoder png; leave --encoder out"):
        copy(tmp_path / "in.jpg", tmp_path / "out.png", encoder="libx264")


def test_a_video_is_no_picture(tmp_path: Path) -> None:
    path = Clip().make(tmp_path)
    with VideoReader(path) as reader, pytest.raises(WriteError, match="picture"):
        VideoWriter(tmp_path / "out.png", reader)


@pytest.mark.parametrize(("alpha", "is_lost"), [(255, False), (254, True)], ids=str)
def test_transparency_is_lost_only_where_something_shows_through(alpha: int, is_lost: bool) -> None:
    layout = PixelLayout("gbrap", "rgb", 8, has_alpha=True)
    planes = [np.full((4, 6), 200, np.uint8) for _ in range(4)]
    planes[3][:] = 255
    planes[3][2, 3] = alpha
    frame = Frame(tuple(planes), layout, pts=0, time_base=Fraction(1, 25))
    notes = Notes()
    report_pixels(notes, frame, "gbrp", "libx264rgb")
    assert ("transparency is gone" in "".join(notes.lost)) == is_lost
    # behind an opaque first frame likewise
    first = replace(frame, planes=(*planes[:3], np.full_like(planes[3], 255)))
    for has_alpha in (False, True):
        changes = FrameChanges(first, "libx264rgb", marks_fields=True, has_alpha=has_alpha)
        changes.see(first)
        changes.see(frame)
        said = [["pixels", "with transparency", "it is gone", 1]]
        assert changes.counts() == (said if is_lost and not has_alpha else [])


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_tiff_that_holds_a_jpeg_is_refused(mode: str, tmp_path: Path) -> None:
    """FFmpeg makes a plain colour of it, without an error."""
    picture = Image.fromarray(np.arange(64 * 48, dtype=np.uint8).reshape(48, 64)).convert(mode)
    picture.save(tmp_path / "jpeg.tif", compression="jpeg")
    with (
        VideoReader(tmp_path / "jpeg.tif") as reader,
        pytest.raises(ReadError, match="is a TIFF compressed as JPEG"),
    ):
        next(iter(reader))
    picture.save(tmp_path / "lzw.tif", compression="tiff_lzw")
    with VideoReader(tmp_path / "lzw.tif") as reader:
        assert sum(isinstance(item, Frame) for item in reader) == 1


ULTRA_HDR = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description xmp:Rating="4"'
    b' xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"'
    b" GCamera:MotionPhoto='1' GCamera:MotionPhotoVersion=\"1\"><Container:Directory><rdf:Seq>"
    b'<rdf:li><Container:Item Item:Semantic="Primary"/></rdf:li>'
    b'<rdf:li><Container:Item Item:Semantic="GainMap" Item:Length="9"/></rdf:li></rdf:Seq>'
    b"</Container:Directory><hdrgm:GainMapMax>2</hdrgm:GainMapMax><dc:title>Rain</dc:title>"
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize("name", ["out.jpg", "out.png", "out.mkv"])
def test_the_gain_map_and_the_film_of_a_phone_are_told_and_no_longer_claimed(name, tmp_path):
    """Their pixels are behind the picture, of which they were made before it was restored."""
    first = picture("mjpeg")
    segments = (
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + ULTRA_HDR)
        + segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4))
        + segment(0xE2, b"MPF\0II*\0" + bytes(80))
    )
    source = tmp_path / "clip.jpg"
    source.write_bytes(first[:2] + segments + first[2:] + first)
    lost = copy(source, tmp_path / name).notes.lost
    assert "HDR gain map: it is one of the picture as it was" in lost
    assert "film of a moving photograph: the photograph is restored" in lost
    assert not any("further pictures" in each for each in lost)
    written = (tmp_path / name).read_bytes()
    for claim in (b"hdrgm", b"hdr-gain-map", b"GainMap", b"MotionPhoto", b"21496", b"MPF\0"):
        assert claim not in written
    if name == "out.jpg":  # all else of the XMP stays, and stays whole
        assert b'xmp:Rating="4"' in written and b"<dc:title>Rain</dc:title>" in written
        start, end = written.index(b"<x:xmpmeta"), written.index(b"</x:xmpmeta>")
        size = int.from_bytes(written[start - 31 : start - 29], "big")
        assert start - 31 + size == end + len(b"</x:xmpmeta>")
