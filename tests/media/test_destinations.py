"""Where an output may go, and what it replaces: all else ends in one sentence."""

import os
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import probe
import pytest
from clips import Audio, Clip, Video, every, picture
from damage import TEXT, Restore, assert_one_sentence, assert_plays, left

from mhnet_video.cli.main import main
from mhnet_video.errors import WriteError
from mhnet_video.media.output_file import OutputFile, check_destination


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("out.xyz", ("out.xyz", ".mp4")),
        ("out", ("out", ".mp4")),
        ("out.txt", ("out.txt", ".mp4")),
        ("out.srt", ("out.srt",)),
        ("out.mp3", ("out.mp3",)),
        ("out.wav", ("out.wav",)),
        (".mp4", (".mp4",)),
        ("none/out.mp4", ("none", "not exist")),
        ("clip.mp4/out.mp4", ("clip.mp4",)),
        ("a-folder", ("a-folder", "folder")),
        ("a-folder/", ("a-folder", "folder")),
        ("a-folder.mp4", ("a-folder.mp4", "folder")),
        ("clip.mp4", ("clip.mp4",)),
        ("./../" + "{here}/clip.mp4", ("clip.mp4",)),
        ("link.mp4", ("link.mp4",)),
        ("hard.mp4", ("hard.mp4",)),
        ("fifo.mp4", ("fifo.mp4",)),
        ("/dev/null/out.mp4", ("/dev/null",)),
        ("/proc/out.mp4", ("/proc/out.mp4",)),
        ("x" * 252 + ".mp4", ("name",)),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_destination_that_cannot_be(
    name: str, words: tuple[str, ...], clip: Path, tmp_path: Path, restore: Restore
) -> None:
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "a-folder.mp4").mkdir()
    os.symlink(clip, tmp_path / "link.mp4")
    os.link(clip, tmp_path / "hard.mp4")
    os.mkfifo(tmp_path / "fifo.mp4")
    before, content = left(tmp_path), clip.read_bytes()

    # also with leave to replace: none of these may be
    outcome = restore(clip, os.path.join(tmp_path, name.format(here=tmp_path.name)), "--overwrite")

    assert_one_sentence(outcome, *words)
    assert left(tmp_path) == before
    assert clip.read_bytes() == content
    assert stat.S_ISFIFO((tmp_path / "fifo.mp4").stat().st_mode)
    assert (tmp_path / "link.mp4").is_symlink()


def test_an_existing_output_stays(clip: Path, tmp_path: Path, restore: Restore) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"precious")
    assert_one_sentence(restore(clip, output), "out.mp4", "--overwrite")
    assert output.read_bytes() == b"precious"


def test_an_existing_output_is_replaced_when_asked(
    clip: Path, tmp_path: Path, restore: Restore
) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"precious")
    assert restore(clip, output, "--overwrite").status == 0
    assert_plays(output, 10)


def test_an_existing_output_outlives_a_failed_run(tmp_path: Path, restore: Restore) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(TEXT)
    output = tmp_path / "out.mp4"
    output.write_bytes(b"precious")
    assert_one_sentence(restore(source, output, "--overwrite"), "clip.mp4")
    assert output.read_bytes() == b"precious"


def test_a_link_to_another_place_stays_a_link(clip: Path, tmp_path: Path, restore: Restore) -> None:
    target = tmp_path / "archive" / "dry.mp4"
    target.parent.mkdir()
    target.write_bytes(b"old")
    link = tmp_path / "out.mp4"
    link.symlink_to(target)
    assert restore(clip, link, "--overwrite").status == 0
    assert link.is_symlink()
    assert_plays(target, 10)


def test_a_file_with_the_partial_name_stays(clip: Path, tmp_path: Path, restore: Restore) -> None:
    names = ("out.partial.mp4", "out.mp4.partial", ".out.partial.mp4", "out.part.mp4")
    for name in names:
        (tmp_path / name).write_bytes(b"precious")
    assert restore(clip, tmp_path / "out.mp4").status == 0
    assert_plays(tmp_path / "out.mp4", 10)
    for name in names:
        assert (tmp_path / name).read_bytes() == b"precious"
    assert left(tmp_path) == sorted([clip.name, "out.mp4", *names])


def test_a_partial_file_can_be_the_input(clip: Path, tmp_path: Path, restore: Restore) -> None:
    partial = clip.rename(tmp_path / "out.partial.mp4")
    before = partial.read_bytes()
    assert restore(partial, tmp_path / "out.mp4").status == 0
    assert_plays(tmp_path / "out.mp4", 10)
    assert partial.read_bytes() == before


@pytest.mark.parametrize(
    "name",
    [
        "two words.mp4",
        "-clip.mp4",
        "--help.mp4",
        "%03d.mp4",
        "100%.mp4",
        "http:clip.mp4",
        "file:clip.mp4",
        "pipe:1.mp4",
        "concat:a|b.mp4",
        "a:b.mp4",
        "día lluvioso ☔ 雨.mp4",
        'it\'s "quoted" $(x) `y`.mp4',
        "new\nline.mp4",
        "[a]*?{b}.mp4",
        ".hidden.mp4",
        "UPPER.MP4",
        "many.dots.in.it.mp4",
        "\udcff\udcfe not utf-8.mp4",
        "x" * 240 + ".mp4",
    ],
    ids=lambda name: ascii(name)[:30],
)
def test_any_name(
    name: str, tmp_path: Path, restore: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    plain = Clip(audio=(Audio(codec="ac3"),)).make(tmp_path / "in")
    plain.rename(tmp_path / "in" / name)
    # from inside both folders: names that are all there is, without a leading path
    monkeypatch.chdir(tmp_path / "in")
    assert restore(name, os.path.join("..", "out", "plain.mp4")).status == 0
    monkeypatch.chdir(tmp_path / "out")
    outcome = restore("plain.mp4", name)
    assert (outcome.status, outcome.message) == (0, "")
    assert left(tmp_path / "out") == sorted(["plain.mp4", name])
    shutil.copy(name, tmp_path / "copy.mp4")
    assert_plays(tmp_path / "copy.mp4", 10)


@pytest.mark.parametrize("name", ["%03d.png", "%d.jpg", "frame-*.png"])
def test_a_picture_is_no_pattern(
    name: str, tmp_path: Path, restore: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kind = {"jpg": "mjpeg"}.get(name[-3:], name[-3:])
    for index in range(3):
        for other in (f"{index:03d}.png", f"{index}.jpg", f"frame-{index}.png"):
            Path(other).write_bytes(picture(kind, 48, 48))
    before = left(tmp_path)
    assert_one_sentence(restore(name, "out.png"), name, "not exist")
    assert left(tmp_path) == before

    Path("source.png").write_bytes(picture("png"))
    assert restore("source.png", name).status == 0
    assert left(tmp_path) == sorted([*before, "source.png", name])
    assert restore(name, "out.png").status == 0
    assert_plays(tmp_path / "out.png", 1, 1)


ENCODERS = [
    (("--encoder", "no_such_encoder"), "out.mp4", ("no_such_encoder", "libx264")),
    (("--encoder", "aac"), "out.mp4", ("aac",)),
    (("--encoder", "libx264"), "out.webm", ("libx264", "webm")),
    (("--encoder", "libvpx-vp9"), "out.ts", ("libvpx-vp9", "mpeg-ts")),
    (("--encoder", "mjpeg"), "out.m2ts", ("mjpeg", "mpeg-ts")),
    (("--encoder", "h263"), "out.avi", ("h263",)),
    (("--encoder", "libx264", "--preset", "nonsense"), "out.mp4", ("nonsense",)),
    (("--encoder-option", "crf=nonsense"), "out.mp4", ("crf",)),
    (("--encoder-option", "nonsense=1"), "out.mp4", ("nonsense",)),
]


@pytest.mark.parametrize(
    ("options", "name", "words"), ENCODERS, ids=[" ".join(row[0]) for row in ENCODERS]
)
def test_an_encoder_that_cannot_be(
    options: tuple[str, ...],
    name: str,
    words: tuple[str, ...],
    clip: Path,
    tmp_path: Path,
    restore: Restore,
) -> None:
    outcome = restore(clip, tmp_path / name, *options)
    assert_one_sentence(outcome, *words)
    assert left(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("encoder", ["h264_nvenc", "hevc_nvenc", "h264_qsv", "h264_amf"])
def test_an_encoder_without_its_hardware(
    encoder: str, clip: Path, tmp_path: Path, restore: Restore
) -> None:
    if encoder not in av.codecs_available:
        pytest.skip(f"no {encoder} in this PyAV")
    outcome = restore(clip, tmp_path / "out.mp4", "--encoder", encoder)
    if outcome.status == 0:
        assert_plays(tmp_path / "out.mp4", 10)
        return
    assert_one_sentence(outcome, encoder, "libx264")
    assert left(tmp_path) == ["clip.mp4"]


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """What makes every file fail to grow beyond some bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("output", ["out.mp4", "out.mkv", "out.ts", "out.avi"])
@pytest.mark.parametrize("size", [0, 3000, 30000])
def test_a_full_disk(
    size: int,
    output: str,
    tmp_path: Path,
    restore: Restore,
    small_disk: Callable[[int], None],
) -> None:
    times = every(40, 100)
    source = Clip(video=(Video(times=times),), audio=(Audio(codec="ac3", seconds=4),)).make(
        tmp_path
    )
    small_disk(size)
    outcome = restore(source, tmp_path / output)
    small_disk(resource.RLIM_INFINITY)
    assert_one_sentence(outcome, output)
    assert not (tmp_path / output).exists()
    others = [name for name in left(tmp_path) if name != source.name]
    assert len(others) <= 1
    for name in others:
        # what stays is worth it, and the message says where it is
        assert name in outcome.message
        assert len(probe.probe(tmp_path / name).video.times) > 0
    if size >= 30000:
        assert len(others) == 1


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may not be written to."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    access = os.access
    real = os.path.realpath(folder)
    # root may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: path != real and access(path, mode))
    return folder


def test_a_folder_that_may_not_be_written(clip: Path, locked: Path, restore: Restore) -> None:
    assert_one_sentence(restore(clip, locked / "out.mp4"), "out.mp4", "may not be written to")


def test_a_locked_folder_is_found_out_before_any_work(
    locked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(locked / "bench.json")
    for path in (locked / "bench.json", link):
        with pytest.raises(WriteError, match="the folder may not be written to"):
            check_destination(path, overwrite=True)
        assert main(["bench", "--json", str(path)]) == 1
    assert "measuring" not in capsys.readouterr().err
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    check_destination(fifo)


def test_a_name_may_be_as_long_as_file_systems_allow(tmp_path: Path) -> None:
    """That of the growing file, which is longer, is cut, in the middle of a letter if need be."""
    name = "\N{LATIN SMALL LETTER E WITH ACUTE}" * 125 + ".mp4"
    output = OutputFile(tmp_path / name)
    output.write(b"all")
    assert output.partial is not None and output.partial.suffix == ".mp4"
    output.commit()
    assert os.listdir(tmp_path) == [name]
