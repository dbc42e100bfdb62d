"""What a file and its tracks say of themselves stays."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from clips import Audio, Clip
from promises import BOTH, Promise, audio, dispositions, keep, stream_tags, tags, times, video

from mhnet_video.media.formats.containers import format_of
from mhnet_video.media.tracks.stream_tags import dress

PHONE = {
    "title": "Straße im Regen",
    "creation_time": "2024-03-01T10:20:30.000000Z",
    "location": "+48.8577+002.2950/",
    "com.android.version": "14",
    "com.android.capture.fps": "30.000000",
    "make": "ACME",
    "comment": "100 % rain",
}
APPLE = {
    "com.apple.quicktime.make": "Acme",
    "com.apple.quicktime.location.ISO6709": "+48.8577+002.2950/",
    "com.apple.quicktime.creationdate": "2024-03-01T10:20:30+0100",
}
VENDOR = (("movflags", "use_metadata_tags"),)
NAMED = (
    Audio(codec="ac3", metadata={"language": "deu", "title": "Kommentar"}, disposition=1),
    Audio(
        codec="ac3",
        metadata={"language": "eng", "title": "Description"},
        disposition=int(av.stream.Disposition.visual_impaired),
    ),
)

TAGS = [
    Promise("a phone's, MP4", Clip(metadata=PHONE, options=VENDOR), "out.mp4", (tags,)),
    Promise("a phone's, MP4 to MKV", Clip(metadata=PHONE, options=VENDOR), "out.mkv", (tags,)),
    Promise("a phone's, MP4 to MOV", Clip(metadata=PHONE, options=VENDOR), "out.mov", (tags,)),
    Promise(
        "iTunes', MP4",
        Clip(metadata={"title": "Rain", "artist": "Sky", "date": "2024", "genre": "Weather"}),
        "out.mp4",
        (tags,),
    ),
    Promise(
        "Apple's, MOV",
        Clip(name="clip.mov", metadata=APPLE, options=VENDOR),
        "out.mov",
        (tags,),
    ),
    Promise(
        "any, MKV",
        Clip(name="clip.mkv", metadata={**PHONE, "CAMERA_SERIAL": "0042"}),
        "out.mkv",
        (tags,),
    ),
    Promise("any, MKV to MP4", Clip(name="clip.mkv", metadata=PHONE), "out.mp4", (tags,)),
    Promise(
        "title and language of tracks, MKV",
        Clip(name="clip.mkv", audio=NAMED, video=video(metadata={"title": "Front camera"})),
        "out.mkv",
        (times, audio, stream_tags, dispositions),
    ),
    Promise(
        "language of tracks, MP4",
        Clip(audio=NAMED, video=video(metadata={"language": "deu"})),
        "out.mp4",
        (times, audio, stream_tags, dispositions),
    ),
    Promise(
        "language of tracks, TS",
        Clip(name="clip.ts", audio=BOTH),
        "out.ts",
        (times, stream_tags),
    ),
]


@pytest.mark.parametrize("promise", TAGS, ids=lambda promise: promise.name)
def test_tags_stay(promise: Promise, tmp_path: Path) -> None:
    keep(promise, tmp_path)


def test_the_name_of_a_mov_s_track_becomes_its_title() -> None:
    source: Any = SimpleNamespace(metadata={"name": "Rear"}, disposition=0)
    target: Any = SimpleNamespace(metadata={}, disposition=0)
    dress(target, source, format_of("out.mkv"))
    assert target.metadata == {"title": "Rear"}
