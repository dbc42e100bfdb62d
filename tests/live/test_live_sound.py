"""How sound of a live source is known again, and what a recording lacks of it is told."""

import re
from dataclasses import replace

import av
import pytest
from sounds import tones
from test_session import live_frame

from mhnet_video.live.connection_events import TIME_BASE
from mhnet_video.live.recorder import Recorder
from mhnet_video.live.sound import SoundPacket, SoundReader

pytestmark = pytest.mark.beside


def format_from(path, first):
    """The format of the sound, its first packets not read."""
    with av.open(str(path)) as container:
        reader = SoundReader(container)
        for number, packet in enumerate(container.demux(reader.stream)):
            if number >= first:
                reader.put(packet)
        return reader.identify()


@pytest.mark.parametrize(
    ("name", "codec"), [("in.mp4", "aac"), ("in.ts", "aac"), ("in.mkv", "flac")]
)
def test_a_connection_that_comes_back_has_the_same_format(name, codec, tmp_path):
    path = tones(tmp_path / name, [440.0, 880.0], codec=codec)
    before, after = (format_from(path, first) for first in (0, 20))
    assert before.first != after.first and before.template != after.template
    assert before == after
    assert before != replace(before, codec="mp3")


def test_another_rate_is_another_format(tmp_path):
    paths = [tones(tmp_path / f"{rate}.mp4", [440.0], rate=rate) for rate in (44100, 48000)]
    one, other = (format_from(path, 0) for path in paths)
    assert one != other


@pytest.fixture(scope="module")
def packets(tmp_path_factory):
    """Two seconds of sound, its first packet at 10 s."""
    path = tones(tmp_path_factory.mktemp("sound") / "in.mp4", [440.0, 880.0])
    with av.open(str(path)) as container:
        reader = SoundReader(container)
        held = [packet for packet in container.demux(reader.stream) if packet.size]
        for packet in held:
            reader.put(packet)
        kind = reader.identify()
    length = round(float(held[0].duration * held[0].time_base) / TIME_BASE)
    begin = round(10 / TIME_BASE)
    return [
        SoundPacket(kind, bytes(packet), begin + index * length, length)
        for index, packet in enumerate(held)
    ]


def test_sound_that_comes_when_its_segment_is_complete_is_counted(packets, tmp_path):
    recorder = Recorder(tmp_path / "out.mkv", fps=25, segment_seconds=0.5, sound=packets[0].format)
    pictures = [live_frame(10 + index * 0.04) for index in range(26)]
    # each packet comes 0.3 s behind the pictures beside it
    items = [(frame.pts, frame) for frame in pictures]
    items += [(packet.pts + round(0.3 / TIME_BASE), packet) for packet in packets[:40]]
    for _, item in sorted(items, key=lambda each: each[0]):
        recorder.put(item)
    recorder.close()
    assert recorder.error is None and len(recorder.files) >= 2
    recorded = 0
    for name in recorder.files:
        with av.open(name) as container:
            recorded += sum(bool(packet.size) for packet in container.demux(audio=0))
    (said,) = recorder.lost
    found = re.fullmatch(r"sound: (\d+) packets; it came later than .*", said)
    assert found and int(found[1]) + recorded == 40
    assert int(found[1]) > 5


def test_sound_that_begins_behind_the_first_picture_is_told(packets, tmp_path):
    recorder = Recorder(tmp_path / "out.mkv", fps=25)
    for item in (live_frame(10), live_frame(10.04), *packets[:5], live_frame(10.2)):
        recorder.put(item)
    recorder.close()
    assert recorder.lost == [
        "sound: it began behind the first picture, when the file had no track for it"
    ]
