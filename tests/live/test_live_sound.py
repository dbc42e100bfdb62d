"""How sound of a live source is known again."""

from dataclasses import replace

import av
import pytest
from sounds import tones

from mhnet_video.live.sound import SoundReader

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
