"""Sound is copied bit for bit where the container takes it, and is in time in any case."""

from pathlib import Path

import pytest
from clips import Audio, Clip, every
from promises import (
    BOTH,
    MP3,
    VP9,
    Promise,
    audio,
    audio_becomes,
    audio_ends,
    audio_starts,
    first_audio,
    keep,
    late_audio,
    run,
    sound,
    stream_tags,
    times,
    video,
)

AUDIO = [
    Promise("AAC, MP4", Clip(audio=(Audio(),)), "out.mp4", (times, audio, sound)),
    Promise("AAC, MP4 to MOV", Clip(audio=(Audio(),)), "out.mov", (times, audio, sound)),
    Promise("AAC, MP4 to MKV", Clip(audio=(Audio(),)), "out.mkv", (times, audio)),
    Promise("AAC, MKV", Clip(name="clip.mkv", audio=(Audio(),)), "out.mkv", (times, audio)),
    Promise("AAC, MKV to MP4", Clip(name="clip.mkv", audio=(Audio(),)), "out.mp4", (times, audio)),
    Promise("AAC, TS", Clip(name="clip.ts", audio=(Audio(),)), "out.ts", (times, sound)),
    Promise("AAC, TS to MP4", Clip(name="clip.ts", audio=(Audio(),)), "out.mp4", (times, sound)),
    Promise("AAC, MP4 to TS", Clip(audio=(Audio(),)), "out.ts", (audio_starts,)),
    Promise(
        "MP3, AVI to MP4",
        Clip(name="clip.avi", video=video(codec="mpeg4"), audio=(Audio(codec=MP3),)),
        "out.mp4",
        (times, sound),
    ),
    Promise(
        "PCM, AVI",
        Clip(name="clip.avi", video=video(codec="mpeg4"), audio=(Audio(codec="pcm_s16le"),)),
        "out.avi",
        (times, audio, sound),
    ),
    Promise(
        "PCM, AVI to MKV",
        Clip(name="clip.avi", video=video(codec="mpeg4"), audio=(Audio(codec="pcm_s16le"),)),
        "out.mkv",
        (times, audio, sound),
    ),
    Promise(
        "PCM, MOV",
        Clip(name="clip.mov", audio=(Audio(codec="pcm_s24le"),)),
        "out.mov",
        (times, audio, sound),
    ),
    Promise(
        "G.711, MOV",
        Clip(name="clip.mov", audio=(Audio(codec="pcm_mulaw", rate=8000),)),
        "out.mov",
        (times, audio, sound),
    ),
    Promise(
        "G.711 to AAC, MOV to MP4",
        Clip(name="clip.mov", audio=(Audio(codec="pcm_alaw", rate=8000),)),
        "out.mp4",
        (times, audio_becomes("aac")),
    ),
    Promise(
        "G.711, MOV to MKV",
        Clip(name="clip.mov", audio=(Audio(codec="pcm_alaw", rate=8000),)),
        "out.mkv",
        (times, audio, sound),
    ),
    Promise(
        "ADPCM to AAC, AVI to MP4",
        Clip(
            name="clip.avi",
            video=video(codec="mpeg4"),
            audio=(Audio(codec="adpcm_ima_wav", rate=22050),),
        ),
        "out.mp4",
        (times, audio_becomes("aac")),
    ),
    Promise(
        "AAC to Opus, MP4 to WebM",
        Clip(audio=(Audio(),)),
        "out.webm",
        (times, audio_becomes("opus")),
    ),
    Promise(
        "Opus, WebM",
        Clip(name="clip.webm", video=(VP9,), audio=(Audio(codec="libopus"),)),
        "out.webm",
        (times, audio, sound),
    ),
    Promise(
        "Opus, WebM to MP4",
        Clip(name="clip.webm", video=(VP9,), audio=(Audio(codec="libopus"),)),
        "out.mp4",
        (times, audio),
    ),
    Promise(
        "FLAC, MKV to MP4",
        Clip(name="clip.mkv", audio=(Audio(codec="flac"),)),
        "out.mp4",
        (times, audio, sound),
    ),
    Promise(
        "Opus, MKV",
        Clip(name="clip.mkv", audio=(Audio(codec="libopus"),)),
        "out.mkv",
        (times, audio, sound),
    ),
    Promise("two tracks, MP4", Clip(audio=BOTH), "out.mp4", (times, audio, stream_tags)),
    Promise(
        "two tracks, MKV to MP4",
        Clip(name="clip.mkv", audio=BOTH),
        "out.mp4",
        (times, audio, stream_tags),
    ),
    Promise(
        "one track kept, one re-encoded, MOV to MP4",
        Clip(name="clip.mov", audio=(Audio(codec="ac3"), Audio(codec="pcm_alaw", rate=8000))),
        "out.mp4",
        (times, audio_starts, first_audio),
    ),
    Promise(
        "a pause, MKV",
        Clip(name="clip.mkv", audio=(Audio(codec="ac3", pause=0.5),)),
        "out.mkv",
        (times, audio),
    ),
    Promise(
        "a pause, MKV to MP4",
        Clip(name="clip.mkv", audio=(Audio(codec="ac3", pause=0.5),)),
        "out.mp4",
        (times, audio),
    ),
    Promise(
        "a pause to Opus, MKV to WebM",
        Clip(name="clip.mkv", audio=(Audio(codec="ac3", pause=0.5),)),
        "out.webm",
        (times, audio_starts, audio_ends),
    ),
    *(
        Promise(
            f"{codec} that begins much later than the video, MKV to {extension}",
            Clip(
                name="clip.mkv",
                video=video(times=every(200, 30)),
                audio=(Audio(codec=codec, start=4, seconds=1),),
            ),
            f"out.{extension}",
            (times, late_audio),
        )
        for codec in ("ac3", "eac3", "aac")
        for extension in ("mp4", "mkv")
    ),
    Promise(
        "much longer than the video, MP4",
        Clip(audio=(Audio(codec="ac3", seconds=6),)),
        "out.mp4",
        (times, audio),
    ),
    Promise(
        "shorter than the video, MP4",
        Clip(video=video(times=every(200, 12)), audio=(Audio(codec="ac3", seconds=0.1),)),
        "out.mp4",
        (times, audio),
    ),
]


@pytest.mark.parametrize("promise", AUDIO, ids=lambda promise: promise.name)
def test_sound_stays(promise: Promise, tmp_path: Path) -> None:
    keep(promise, tmp_path)


@pytest.mark.parametrize("codec", ["ac3", "eac3", "aac", "flac"])
@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_a_part_without_sound(codec: str, extension: str, tmp_path: Path) -> None:
    """The track is there, though nothing of it is in the part."""
    sound = Audio(codec=codec, seconds=0.1)
    clip = Clip(name="clip.mkv", video=video(times=every(40, 20), gop=5), audio=(sound,))
    case = run(Promise("", clip, f"out.{extension}", (), {"start": 0.4}), tmp_path)
    assert len(case.output.video.times) == case.report.frames == 10
    assert len(case.output.of("audio")) == 1
