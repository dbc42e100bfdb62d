"""What a live stream is: what can be piped, and what each kind of address takes."""

from dataclasses import dataclass, field, replace

from mhnet_video.errors import ConfigError, WriteError
from mhnet_video.locator import locate, shown
from mhnet_video.media.formats.containers import MPEG_TS, Format
from mhnet_video.media.reading.source import url_of

PIPED = {
    "mpegts": MPEG_TS,
    "nut": Format(name="nut", label="NUT"),
    "h264": Format(name="h264", label="raw H.264", audio=""),
    "mjpeg": Format(name="mjpeg", label="motion JPEG", video="mjpeg", audio=""),
}
"""Formats that standard output takes; those without a codec for audio have no sound."""
_RTP_AUDIO = ("aac", "mp2", "mp3", "opus", "pcm_alaw", "pcm_mulaw", "adpcm_g722")
"""Audio codecs that FFmpeg sends as RTP and players know. Source: RFC 3551 and RFC 7587."""

CAMERA = "v4l2:"
"""Begins the name of a virtual camera, which is the rest, such as `/dev/video9`."""


@dataclass(frozen=True)
class Destination:
    """How frames are sent to one kind of address."""

    muxer: str
    """FFmpeg's name."""
    label: str
    """The name for people."""
    audio_codecs: tuple[str, ...] = MPEG_TS.audio_codecs
    """Audio codecs that are copied; others become AAC."""
    options: dict[str, str] = field(default_factory=dict)
    """The muxer's."""

    @property
    def relayed(self) -> Format:
        """What is sent to the process that relays it."""
        return replace(PIPED["nut"], label=self.label, audio_codecs=self.audio_codecs)


_FLV = Destination("flv", "FLV", ("aac",))
# over TCP, as what is lost on the way to a server is lost for all who watch there
_RTSP = Destination("rtsp", "RTSP", _RTP_AUDIO, {"rtsp_transport": "tcp"})
_TS = Destination("mpegts", MPEG_TS.label)
DESTINATIONS = {
    "rtsp": _RTSP,
    "rtsps": _RTSP,
    "rtmp": _FLV,
    "rtmps": _FLV,
    "srt": _TS,
    "udp": _TS,
    "tcp": _TS,
    "http": _TS,
    "https": _TS,
    "rtp": Destination("rtp_mpegts", MPEG_TS.label),
}
"""How frames are sent, by the scheme of an address."""


def check_forwarding(url: str) -> None:
    """Find out whether frames can be sent to an address of this kind.

    Raises:
        ConfigError: They cannot.
    """
    parts = locate(url)
    if parts is None or parts.scheme not in DESTINATIONS:
        known = ", ".join(f"{name}://" for name in DESTINATIONS)
        raise ConfigError(
            "frames are sent to standard output (-), to a virtual camera (v4l2:/dev/video9) or to "
            f"an address, one of {known}, not to {shown(url)}"
        )
    url_of(url)


def check_piped(name: str) -> None:
    """Find out whether a format can be written to standard output.

    Raises:
        WriteError: It cannot.
    """
    if name not in PIPED:
        raise WriteError(f"{name} cannot be piped; --format is one of {', '.join(PIPED)}.")
