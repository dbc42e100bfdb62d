"""What must stay when a file is restored: runs, and the checks that judge them from outside."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np
import probe
from clips import Audio, Clip, Subtitles, Video, picture
from standin import StandIn

from mhnet_video.config import RestoreConfig
from mhnet_video.pipelines.restore import Report, restore_video

SHIFT = Fraction(1, 20)
"""By how much Matroska may move all streams together, to make room for an encoder's priming."""


@dataclass(frozen=True)
class Case:
    """A finished run, seen from the outside."""

    source: probe.Probe
    output: probe.Probe
    report: Report


Check = Callable[[Case], None]


@dataclass(frozen=True)
class Promise:
    """What is restored into what, and what must hold then."""

    name: str
    clip: Clip
    output: str
    checks: tuple[Check, ...]
    config: dict[str, Any] = field(default_factory=dict)
    restorer: Callable[[], Any] | None = StandIn
    """None builds the real one."""


def run(promise: Promise, folder: Path) -> Case:
    source = promise.clip.make(folder)
    output = folder / promise.output
    report = restore_video(
        source,
        output,
        RestoreConfig(**promise.config),
        restorer=promise.restorer() if promise.restorer else None,
    )
    return Case(probe.probe(source), probe.probe(output), report)


def keep(promise: Promise, folder: Path) -> None:
    """Run a promise and see that it holds."""
    case = run(promise, folder)
    for check in promise.checks:
        check(case)
    # nothing but the output is left beside it
    assert sorted(item.name for item in folder.iterdir()) == sorted(
        [promise.clip.name, promise.output]
    )


def offset(case: Case) -> Fraction:
    """By how much the whole file moved; only Matroska may, and only a little."""
    if case.output.path.suffix not in (".mkv", ".webm"):
        return Fraction(0)
    starts = [packet.pts for item in case.source.streams for packet in item.packets[:1]]
    first = min(start for start in starts if start is not None)
    if first >= 0:
        return Fraction(0)
    return case.output.video.times[0] - case.source.video.times[0]


def assert_same_times(source: Any, output: Any, tick: Fraction, moved: Fraction) -> None:
    assert len(output) == len(source)
    # half a tick is what rounding to the container's clock costs; a wrong time costs a whole one
    slack = tick / 2 + (Fraction(1, 1000) if moved else 0)
    wrong = [
        (index, float(before), float(after))
        for index, (before, after) in enumerate(zip(source, output, strict=True))
        if before is not None and abs(after - before - moved) > slack
    ]
    assert not wrong


def times(case: Case) -> None:
    """As many frames as the source decodes to, each with its time."""
    moved = offset(case)
    assert abs(moved) <= SHIFT
    source, output = case.source.video, case.output.video
    assert_same_times(source.times, output.times, output.time_base, moved)
    assert case.report.frames == len(source.times)


def shifted_times(case: Case) -> None:
    """As `times`, from 0, and told."""
    source, output = case.source.video, case.output.video
    moved = output.times[0] - source.times[0]
    assert moved < -10
    assert_same_times(source.times, output.times, output.time_base, moved)
    for before, after in zip(case.source.of("audio"), case.output.of("audio"), strict=True):
        assert abs(after.packets[0].pts - before.packets[0].pts - moved) < Fraction(1, 500)
    assert min(item.packets[0].pts for item in case.output.streams) < 1
    assert told(case.report, "start")


def nudged_times(case: Case) -> None:
    """As many frames, in order, none more than a few ticks from its time."""
    source, output = case.source.video, case.output.video
    assert len(output.times) == len(source.times)
    assert all(one < two for one, two in zip(output.times, output.times[1:], strict=False))
    for before, after in zip(source.times, output.times, strict=True):
        assert abs(after - before) <= Fraction(25, 1000)


def pictures(case: Case) -> None:
    """Each time shows its own picture; the wrong one would be 10 dB lower."""
    before, after = luma(case.source), luma(case.output)
    assert after.shape == before.shape
    for one, other in zip(before, after, strict=True):
        assert probe.psnr(one, other) > 30


def luma(item: probe.Probe) -> Any:
    """The first plane of each frame, in 8 bits."""
    rows = probe.pictures(item.path)
    size = (item.video.width or 0) * (item.video.height or 0)
    bits = av.VideoFormat(item.video.pixel_format).components[0].bits
    if bits == 8:
        return rows[:, :size]
    return rows[:, : 2 * size].view("<u2") / (1 << (bits - 8))


def last_duration(case: Case) -> None:
    """The last frame is shown as long as before; ffprobe before version 6 does not tell."""
    source, output = (
        max(probe.packets(item.path, item.video.index), key=lambda packet: packet.pts)
        for item in (case.source, case.output)
    )
    assert abs(source.duration - output.duration) <= case.output.video.time_base / 2


def audio(case: Case) -> None:
    """Every packet of every audio track, bit for bit, at its time."""
    moved = offset(case)
    tracks = case.source.of("audio"), case.output.of("audio")
    assert len(tracks[0]) == len(tracks[1]) > 0
    for source, output in zip(*tracks, strict=True):
        assert output.codec == source.codec
        joined = source.codec.startswith("pcm")
        if joined and len(source.packets) != len(output.packets):
            # a container may cut PCM elsewhere
            size = [sum(packet.size for packet in item.packets) for item in (source, output)]
            assert size[0] == size[1]
            continue
        assert [item.md5 for item in output.packets] == [item.md5 for item in source.packets]
        assert_same_times(
            [item.pts for item in source.packets],
            [item.pts for item in output.packets],
            output.time_base,
            moved,
        )


def late_audio(case: Case) -> None:
    """As `audio`; before it there may be a moment of silence, as MP4 wants some sound at once."""
    before, after = case.source.of("audio")[0].packets, case.output.of("audio")[0].packets
    assert len(after) - len(before) in (0, 1)
    extra = len(after) - len(before)
    assert [item.md5 for item in after[extra:]] == [item.md5 for item in before]
    tick = case.output.of("audio")[0].time_base
    for one, other in zip(before, after[extra:], strict=True):
        assert abs(other.pts - one.pts) <= tick / 2
    if extra:
        assert np.abs(probe.sound(case.output.path)[:1024]).max() == 0


def sound(case: Case) -> None:
    """The same samples come out, however the container frames the packets."""
    for track in range(len(case.source.of("audio"))):
        before, after = (probe.sound(item.path, track) for item in (case.source, case.output))
        assert after.shape == before.shape
        assert np.array_equal(before, after)


def first_audio(case: Case) -> None:
    """The first track is copied though the second had to be re-encoded."""
    before, after = case.source.of("audio"), case.output.of("audio")
    assert [item.codec for item in after] == [before[0].codec, "aac"]
    assert [item.md5 for item in after[0].packets] == [item.md5 for item in before[0].packets]


def audio_starts(case: Case) -> None:
    """Each audio track starts as long before or after the video as it did."""
    for source, output in zip(case.source.of("audio"), case.output.of("audio"), strict=True):
        before = source.packets[0].pts - case.source.video.times[0]
        after = output.packets[0].pts - case.output.video.times[0]
        # one packet of the new codec is its priming
        assert abs(after - before) <= Fraction(1, 20)


def audio_ends(case: Case) -> None:
    """The tone after a pause comes when it came before."""
    for track in range(len(case.source.of("audio"))):
        before, after = (probe.last_sound(item.path, track) for item in (case.source, case.output))
        assert abs(after - before) < 0.05


def audio_becomes(codec: str) -> Check:
    """The container refuses the codec: re-encoded, as long as before, and told."""

    def check(case: Case) -> None:
        audio_starts(case)
        for track, output in enumerate(case.output.of("audio")):
            assert output.codec == codec
            assert output.sample_rate in (case.source.of("audio")[track].sample_rate, 48000)
            before = probe.sound(case.source.path, track)
            after = probe.sound(case.output.path, track)
            rates = case.source.of("audio")[track].sample_rate, output.sample_rate
            assert abs(len(before) / rates[0] - len(after) / rates[1]) < 0.06
            assert after.std() > 0.8 * before.std()
        name = {"aac": "AAC", "opus": "Opus"}[codec]
        assert told(case.report, name)

    return check


def told(report: Report, *words: str) -> bool:
    """Whether one line of the report has all the words."""
    lines = [line.casefold() for line in (*report.kept, *report.lost)]
    return any(all(word.casefold() in line for word in words) for line in lines)


def lost(*words: str) -> Check:
    """One line of what was lost has all the words."""

    def check(case: Case) -> None:
        lines = [line.casefold() for line in case.report.lost]
        assert any(all(word.casefold() in line for word in words) for line in lines), lines

    return check


def nothing_lost(case: Case) -> None:
    assert case.report.lost == ()


def cues(path: Path, track: int) -> list[tuple[float, str]]:
    """When each cue of a text track is shown, in seconds, and its words."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[track]
        for packet in container.demux(stream):
            for subtitle in packet.decode() if packet.size else []:
                text = subtitle.dialogue.decode().strip()
                if text:
                    found.append((round(float(packet.pts * packet.time_base), 2), text))
    return found


def subtitles(case: Case) -> None:
    """Copied: the same codec, bytes and times."""
    moved = offset(case)
    tracks = case.source.of("subtitle"), case.output.of("subtitle")
    assert len(tracks[0]) == len(tracks[1]) > 0
    for source, output in zip(*tracks, strict=True):
        assert output.codec == source.codec
        # MP4 fills the time between cues with empty ones
        before, after = (
            [packet for packet in item.packets if packet.size > 2] for item in (source, output)
        )
        assert [packet.md5 for packet in after] == [packet.md5 for packet in before]
        for one, other in zip(before, after, strict=True):
            assert abs(other.pts - one.pts - moved) <= output.time_base
            assert abs(other.duration - one.duration) <= output.time_base
        if case.output.path.suffix == ".mp4":  # its last, empty cue makes it no longer
            ends = [item.packets[-1].pts + item.packets[-1].duration for item in (source, output)]
            assert abs(ends[1] - ends[0] - moved) <= 4 * output.time_base


def subtitles_become(codec: str) -> Check:
    """Converted: the same words at the same times."""

    def check(case: Case) -> None:
        assert [item.codec for item in case.output.of("subtitle")] == [codec]
        before, after = cues(case.source.path, 0), cues(case.output.path, 0)
        assert len(before) > 0
        assert after == before

    return check


def no(kind: str) -> Check:
    def check(case: Case) -> None:
        assert case.output.of(kind) == []

    return check


def data(case: Case) -> None:
    """Telemetry is copied as it is, at its times."""
    tracks = case.source.of("data"), case.output.of("data")
    assert len(tracks[0]) == len(tracks[1]) > 0
    for source, output in zip(*tracks, strict=True):
        assert output.codec == source.codec
        assert [item.md5 for item in output.packets] == [item.md5 for item in source.packets]
        times = [[packet.pts for packet in item.packets] for item in (source, output)]
        assert_same_times(*times, output.time_base, Fraction(0))


def attachments(case: Case) -> None:
    found = []
    for item in (case.source, case.output):
        with av.open(str(item.path)) as container:
            found.append(
                [
                    (stream.metadata.get("filename"), stream.mimetype, bytes(stream.data))
                    for stream in container.streams.attachments
                ]
            )
    assert len(found[0]) > 0
    assert found[1] == found[0]


def cover(case: Case) -> None:
    """A cover stays a cover, byte for byte."""
    before, after = case.source.of("cover"), case.output.of("cover")
    assert len(before) == len(after) == 1
    assert after[0].packets[0].md5 == before[0].packets[0].md5
    assert len(case.output.of("video")) == len(case.source.of("video"))


def second_video(case: Case) -> None:
    """The other camera's video is copied."""
    before, after = case.source.of("video"), case.output.of("video")
    assert len(before) == len(after) == 2
    assert [item.md5 for item in after[1].packets] == [item.md5 for item in before[1].packets]
    assert_same_times(before[1].times, after[1].times, after[1].time_base, offset(case))


def second_pictures(case: Case) -> None:
    """As `second_video`, where the container frames the packets in its own way."""
    found = []
    for item in (case.source, case.output):
        with av.open(str(item.path)) as container:
            frames = container.decode(video=1)
            found.append([frame.to_ndarray(format="gray") for frame in frames])
    assert len(found[0]) > 0
    assert np.array_equal(*found)


def chapters(case: Case) -> None:
    assert len(case.source.chapters) > 0
    moved = offset(case)
    assert len(case.output.chapters) == len(case.source.chapters)
    for before, after in zip(case.source.chapters, case.output.chapters, strict=True):
        assert after[2] == before[2]
        assert abs(after[0] - before[0] - moved) <= Fraction(2, 1000)
        assert abs(after[1] - before[1] - moved) <= Fraction(2, 1000)


def stream_count(case: Case) -> None:
    """No stream was added; MP4's chapters are a track too."""
    assert len(case.output.streams) == len(case.source.streams)


CONTAINERS_OWN = {
    "major_brand", "minor_version", "compatible_brands", "encoder", "software", "duration",
    "vendor_id", "handler_name",
    # `location` once more
    "location-eng",
}  # fmt: skip


def tags(case: Case) -> None:
    """Every global tag that is not the container's own."""
    before, after = (
        {
            key.casefold(): value
            for key, value in item.tags.items()
            if key.casefold() not in CONTAINERS_OWN
        }
        for item in (case.source, case.output)
    )
    assert len(before) > 0
    assert {key: after.get(key) for key in before} == before


def stream_tags(case: Case) -> None:
    """Language, title and what else is said of each stream."""
    seen = 0
    for kind in ("video", "audio", "subtitle"):
        for before, after in zip(case.source.of(kind), case.output.of(kind), strict=True):
            for key, value in before.tags.items():
                if key.casefold() in CONTAINERS_OWN or (key, value) == ("language", "und"):
                    continue
                same = {name.casefold(): told for name, told in after.tags.items()}
                # MP4 keeps a track's title in `name`, which some versions read as handler_name
                assert same.get(key.casefold()) == value, (kind, key)
                seen += 1
    assert seen > 0


def dispositions(case: Case) -> None:
    for kind in ("video", "audio", "subtitle"):
        for before, after in zip(case.source.of(kind), case.output.of(kind), strict=True):
            assert after.dispositions == before.dispositions


def matrix(case: Case) -> None:
    assert case.source.video.matrix is not None
    assert case.output.video.matrix == case.source.video.matrix


def matroska_matrix(case: Case) -> None:
    """As `matrix`; ffprobe before version 6 does not read Matroska's."""
    before, after = (probe.display_matrix(item.path) for item in (case.source, case.output))
    assert before is not None
    assert after == before


def aspect(case: Case) -> None:
    assert case.source.video.aspect != 1
    assert case.output.video.aspect == case.source.video.aspect


def aspect_stays(case: Case) -> None:
    assert case.output.video.aspect == case.source.video.aspect


def color(case: Case) -> None:
    assert case.output.video.color == case.source.video.color


def chroma(location: str) -> Check:
    """Where the output's chroma samples lie, by what FFmpeg says of it."""

    def check(case: Case) -> None:
        av.logging.set_level(av.logging.INFO)
        av.logging.set_libav_level(av.logging.VERBOSE)
        try:
            with av.open(str(case.output.path)) as container:
                told = container.dumps_format()
        finally:
            av.logging.set_level(None)
        assert re.search(rf"Video: .*[(, ]{location}\)", told), told

    return check


def size(case: Case) -> None:
    before, after = case.source.video, case.output.video
    assert (after.width, after.height) == (before.width, before.height)


def pixel_format(case: Case) -> None:
    """The source's own; yuvj is only another name for full range."""
    before, after = case.source.video.pixel_format, case.output.video.pixel_format
    assert after.replace("yuvj", "yuv") == before.replace("yuvj", "yuv")


def monochrome(case: Case) -> None:
    """Grey in all its bits; FFmpeg decodes H.264 without chroma as 4:2:0 of none."""
    wide = case.source.video.pixel_format.endswith("10le")
    assert case.output.video.pixel_format in (("yuv420p10le", "gray10le") if wide else ("yuv420p",))
    rows = probe.pictures(case.output.path)
    chroma = rows[:, luma(case.output).shape[1] * (2 if wide else 1) :]
    values = chroma.view("<u2") if wide else chroma
    assert np.all(values == (512 if wide else 128))


def restored(case: Case) -> None:
    """What the restorer made is what was written, in the first video that is no cover."""
    before, after = luma(case.source), luma(case.output)
    assert after.shape == before.shape
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] < -0.9


def identical(case: Case) -> None:
    """The decoded output is the decoded input, bit for bit, whatever the packing."""
    twin = _TWINS.get(case.source.video.pixel_format)
    size(case)
    before = probe.pictures(case.source.path, twin)
    after = probe.pictures(case.output.path, twin)
    assert len(before) > 0
    assert np.array_equal(before, after)
    if twin is None:
        pixel_format(case)


# what old and new FFmpeg alike repack into without loss
_TWINS = {
    "nv12": "yuv420p",
    "nv21": "yuv420p",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "gray16be": "gray16le",
    "rgb24": "bgra",
    "bgr24": "bgra",
    "bgr0": "bgra",
    "0rgb": "bgra",
    "gbrp": "bgra",
    "gbrap": "bgra",
    "rgba": "bgra",
    "bgra": "bgra",
    "rgb48le": "gbrp16le",
    "pal8": "bgra",
}

MP3 = "libmp3lame"
ALL = (times, pictures)
BOTH = (
    Audio(metadata={"language": "deu"}, disposition=1),
    Audio(codec="ac3", metadata={"language": "fra"}, seconds=0.5),
)
VP9 = Video(codec="libvpx-vp9", options=(("deadline", "realtime"), ("cpu-used", "8")))


def video(**values: Any) -> tuple[Video]:
    return (Video(**values),)


TEXT = (
    Subtitles(metadata={"language": "jpn"}, disposition=int(av.stream.Disposition.forced)),
    Subtitles(codec="ass", metadata={"language": "fra"}),
)
CHAPTERS = ((0.0, 0.16, "Before the rain"), (0.16, 0.4, "After"))
JPEG, PNG = picture(), picture("png")

FULL_709, LIMITED_601, HDR, P3 = (2, 1, 1, 1), (1, 6, 6, 6), (1, 9, 9, 16), (1, 1, 12, 1)
FFV1 = Video(codec="ffv1", width=64, height=48)


REAL = ("bus_stop_moving.mp4", "street_handheld.mp4", "yard.mp4")
