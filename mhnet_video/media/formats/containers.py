"""What each output format holds, and how it is written so that a killed run leaves a file."""

from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from pathlib import Path

from mhnet_video.errors import WriteError

_FRAGMENT_MS = 500
"""How much of a film may be in memory only, in milliseconds."""
_MAX_TIMESCALE = 10_000_000
"""Ticks of a second of an MP4's own clock, at most."""
_CLOCKS = (9_000_000, 90_000, 30_000, 24_000)
"""Ticks of a second to choose from, the finest first: of every microsecond and every tick of
1/90000 s, the usual one of video, one for 29.97 frames a second, and one in which an MP4 can count
24 hours at once."""
_MAX_CLOCK = 10**9
"""Ticks of a second that libvpx can count; x264 can count twice as many."""
_ITUNES_KEYS = {
    *("title", "artist", "album_artist", "composer", "album", "date", "comment", "genre"),
    *("copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id"),
    *("network", "keywords", "compilation", "track", "disc", "creation_time", "location"),
}
"""Keys of global metadata that iTunes-style MP4 metadata has a place for."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One output format."""

    name: str
    """FFmpeg's name of the muxer."""
    label: str
    """The name for a person."""
    video: str = "libx264"
    """The usual video encoder."""
    audio: str = "aac"
    """What audio is re-encoded to where its codec is refused."""
    subtitle: str | None = None
    """What text subtitles are converted to where their codec is refused; None for nothing."""
    time_base: Fraction | None = None
    """The only unit of time; None where it is free."""
    video_codecs: tuple[str, ...] = ()
    """The video codecs it holds, where the muxer does not tell; empty for asking the muxer."""
    refused_audio: tuple[str, ...] = ()
    """Beginnings of audio codec names that the muxer takes but players do not."""
    audio_codecs: tuple[str, ...] = ()
    """The audio codecs it holds, where the muxer does not tell; empty for asking the muxer."""
    further_audio_codecs: tuple[str, ...] = ()
    """The only ones of tracks beyond the first, and of more than two channels; empty for any."""
    audio_rates: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The only sample rates of audio codecs that the format has no other numbers for."""
    subtitle_codecs: tuple[str, ...] = ()
    """The subtitle codecs it holds, as with `audio_codecs`."""
    data_codecs: tuple[str, ...] = ()
    """Likewise for data."""
    is_mp4: bool = False
    has_rotation: bool = False
    has_chapters: bool = False
    has_attachments: bool = False
    is_constant_rate: bool = False
    """Whether all frames must last equally long."""
    longest_step: int | None = None
    """The most ticks from a packet to the next of its stream; None for any number."""
    options: dict[str, str] = field(default_factory=dict)
    """Muxer options."""

    def clock(self, wished: Fraction, pause_seconds: Fraction) -> Fraction:
        """The unit of time of a stream: as near to the wished one as it can count a pause in.

        Args:
            wished: The source's, in seconds.
            pause_seconds: The longest that may pass from a packet of the stream to the next.
        """
        if self.time_base is not None or self.is_constant_rate:
            return self.time_base or wished
        most = _MAX_CLOCK
        if self.longest_step is not None and pause_seconds:
            most = min(most, int(self.longest_step / pause_seconds))
        if wished.denominator <= most:
            return wished
        coarser = [clock for clock in _CLOCKS if clock < wished.denominator] or [wished.denominator]
        return Fraction(1, next((clock for clock in coarser if clock <= most), coarser[-1]))


_LONGEST_MP4_STEP = (1 << 31) - 2
"""Ticks from a packet to the next that an MP4 can count."""
_MP4 = Format(
    name="mp4",
    label="MP4",
    subtitle="mov_text",
    refused_audio=("pcm_",),
    is_mp4=True,
    longest_step=_LONGEST_MP4_STEP,
    has_rotation=True,
    has_chapters=True,
)
_MKV = Format(
    name="matroska",
    label="Matroska",
    subtitle="subrip",
    time_base=Fraction(1, 1000),
    has_rotation=True,
    has_chapters=True,
    has_attachments=True,
    options={"cluster_time_limit": str(_FRAGMENT_MS)},
)
MPEG_TS = Format(
    name="mpegts",
    label="MPEG-TS",
    time_base=Fraction(1, 90000),
    # FFmpeg writes any other, too, as data of which no player knows what it is
    video_codecs=(
        *("h264", "hevc", "vvc", "mpeg1video", "mpeg2video", "mpeg4"),
        *("vc1", "dirac", "cavs", "avs2", "avs3"),
    ),
    audio_codecs=(
        *("aac", "aac_latm", "mp2", "mp3", "ac3", "eac3", "dca", "opus", "truehd"),
        *("pcm_bluray", "s302m"),
    ),
    subtitle_codecs=("dvb_subtitle", "dvb_teletext", "hdmv_pgs_subtitle"),
    data_codecs=("klv", "timed_id3"),
    options={"mpegts_copyts": "1", "max_delay": "0"},
)
"""MPEG-TS; its times are those of the packets."""
_FLV_RATES = (5512, 11025, 22050, 44100)
"""Sample rates by FLV's two bits.

Source: Adobe Flash Video File Format Specification 10.1, E.4.2.1."""
_FORMATS = {
    "mp4": _MP4,
    "m4v": _MP4,
    "mov": Format(
        name="mov",
        label="MOV",
        subtitle="mov_text",
        is_mp4=True,
        longest_step=_LONGEST_MP4_STEP,
        has_rotation=True,
        has_chapters=True,
    ),
    "3gp": Format(
        name="3gp",
        label="3GP",
        is_mp4=True,
        longest_step=_LONGEST_MP4_STEP,
        has_rotation=True,
    ),
    "mkv": _MKV,
    "webm": Format(
        name="webm",
        label="WebM",
        video="libvpx-vp9",
        audio="libopus",
        subtitle="webvtt",
        time_base=Fraction(1, 1000),
        has_rotation=True,
        has_chapters=True,
        options={"cluster_time_limit": str(_FRAGMENT_MS)},
    ),
    "ts": MPEG_TS,
    "m2ts": Format(**(MPEG_TS.__dict__ | {"options": MPEG_TS.options | {"mpegts_m2ts_mode": "1"}})),
    # FFmpeg fills pauses with empty frames, but no more of them at once
    "avi": Format(
        name="avi",
        label="AVI",
        audio="mp3",
        # FFmpeg 8.1 gives packets of the first half their time, and of the other hardly any
        refused_audio=("eac3", "vorbis"),
        is_constant_rate=True,
        longest_step=60_000,
    ),
    "flv": Format(
        name="flv",
        label="FLV",
        time_base=Fraction(1, 1000),
        # FFmpeg 8.1 takes it, and would play noise
        refused_audio=("pcm_s16be",),
        audio_rates=dict.fromkeys(("pcm_u8", "pcm_s16le", "adpcm_swf"), _FLV_RATES)
        | dict.fromkeys(("pcm_alaw", "pcm_mulaw"), (8000,)),
        further_audio_codecs=("aac", "mp3", "ac3", "eac3", "opus", "flac"),
    ),
}
_FORMATS |= {"qt": _FORMATS["mov"], "mts": _FORMATS["m2ts"], "mpegts": MPEG_TS}
_PICTURES = {
    "png": "png",
    "jpg": "mjpeg",
    "jpeg": "mjpeg",
    "webp": "libwebp",
    "bmp": "bmp",
    "tif": "tiff",
    "tiff": "tiff",
}


def format_of(destination: str) -> Format:
    """The format that an output's name asks for; Matroska for standard output.

    Raises:
        WriteError: The name has an extension that stands for no video format.
    """
    if destination == "-":
        return _MKV
    extension = Path(destination).suffix.lower().lstrip(".")
    if extension in _FORMATS:
        return _FORMATS[extension]
    if extension in _PICTURES:
        raise WriteError(f"{destination} is a picture, not a video; end it in .mp4 or .mkv.")
    said = f"the extension .{extension}, which is not written" if extension else "no extension"
    raise WriteError(
        f"{destination} has {said}; "
        "end it in .mp4, .mov, .mkv, .webm, .ts or .avi (a picture in .png or .jpg)."
    )


def picture_encoder(destination: str) -> str | None:
    """The encoder of the picture format that a name asks for; None if it asks for a video."""
    return _PICTURES.get(Path(destination).suffix.lower().lstrip("."))


def muxer_options(
    container_format: Format,
    time_bases: list[Fraction],
    metadata: dict[str, str],
    *,
    has_cues: bool,
    has_late_track: bool,
    is_seekable: bool,
    chapter_seconds: Fraction = Fraction(0),
) -> dict[str, str]:
    """Options with which times stay exact and a killed run leaves a file that plays.

    Args:
        container_format: The format.
        time_bases: Of the video, then of the other streams.
        metadata: What will be written about the whole file.
        has_cues: Whether there will be subtitles.
        has_late_track: Whether a track has nothing for a while, or for ever.
        is_seekable: Whether the muxer can go back, and make an ordinary MP4 of fragments.
        chapter_seconds: The longest time from one edge of a chapter to the next.
    """
    options = {
        "flush_packets": "1",
        # times as they are: the muxers' default moves all streams to begin at zero
        "avoid_negative_ts": "disabled",
        # a stream with pauses must not keep the others in memory
        "max_interleave_delta": str(_FRAGMENT_MS * 1000),
    } | container_format.options
    if container_format.name in ("avi", "flv"):
        del options["avoid_negative_ts"]
    if container_format.name == "flv":
        # its times begin with the first packet, which must not be one of sound that comes later
        del options["max_interleave_delta"]
    if not container_format.is_mp4:
        return options
    flags = "hybrid_fragmented" if is_seekable else "frag_keyframe"
    if has_late_track:
        # the index of a killed run would be waiting for this track, and all else in memory
        flags += "+empty_moov"
        options["use_editlist"] = "1"
    else:
        # ... and otherwise knows when each track begins
        flags += "+delay_moov"
    is_long = any(len(value.encode("utf-8", "replace")) >= 1 << 16 for value in metadata.values())
    # what QuickTime has places for may be no longer
    if set(map(str.lower, metadata)) - _ITUNES_KEYS or (is_long and container_format.name == "mov"):
        flags += "+use_metadata_tags"
    if has_cues:
        # FFmpeg 8.1 ends cues while it cuts by time, and then dates sound wrongly: it must
        # cut at the video's key frames, which are then a second apart
        flags += "+frag_keyframe"
    else:
        options["frag_duration"] = str(_FRAGMENT_MS * 1000)
    return options | {
        "movflags": flags,
        "movie_timescale": str(_timescale(container_format, time_bases, chapter_seconds)),
    }


def _timescale(
    container_format: Format, time_bases: list[Fraction], chapter_seconds: Fraction
) -> int:
    """A clock for the whole file in which the beginning of each stream is exact.

    Chapters are counted in it, too.
    """
    scale = time_bases[0].denominator
    while scale < 1000:
        scale *= 2
    most = container_format.clock(Fraction(1, _MAX_TIMESCALE), chapter_seconds).denominator
    for time_base in time_bases[1:]:
        finer = lcm(scale, time_base.denominator)
        scale = finer if finer <= most else scale
    return min(scale, most)
