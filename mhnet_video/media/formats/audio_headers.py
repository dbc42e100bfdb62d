"""What headers of AAC, MPEG audio and AC-3 say of the sample rate and the channels."""

from typing import Any

from av.stream import Stream

DOLBY_SYNC = b"\x0b\x77"
"""How each packet of AC-3 and E-AC-3 begins."""
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
"""Sample rates by their index. Source: ISO/IEC 14496-3, 1.6.3."""
_AAC_LAYOUTS = ("", "mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1")
"""Layouts by their channel configuration. Source: ISO/IEC 14496-3, 1.6.3."""
_AAC_LC = 2
"""Audio object type of AAC LC."""


def aac_config(packet: bytes) -> bytes | None:
    """The AudioSpecificConfig that the ADTS header of a packet stands for.

    Args:
        packet: Its first four bytes, or more.

    Returns:
        Two bytes; None where there is no such header, or it does not say which channels there are.
    """
    if len(packet) < 4 or packet[0] != 0xFF or packet[1] & 0xF0 != 0xF0:
        return None
    profile, rate = packet[2] >> 6, packet[2] >> 2 & 15
    channels = (packet[2] & 1) << 2 | packet[3] >> 6
    return _specific_config(profile + 1, rate, channels) if channels else None


def aac_rate_and_layout(config: bytes) -> tuple[int, str] | None:
    """The sample rate and the channel layout of an AudioSpecificConfig; None where it has none.

    Source: ISO/IEC 14496-3, 1.6.2.1.
    """
    if len(config) < 2:
        return None
    rate, channels = (config[0] & 7) << 1 | config[1] >> 7, config[1] >> 3 & 15
    if rate >= len(AAC_RATES) or not 0 < channels < len(_AAC_LAYOUTS):
        return None
    return AAC_RATES[rate], _AAC_LAYOUTS[channels]


def probed_aac_config(stream: Any) -> bytes | None:
    """The AudioSpecificConfig of an AAC stream by what FFmpeg has found; None where it has none."""
    context = stream.codec_context
    rate, channels = context.sample_rate, context.layout.nb_channels
    if context.profile == "HE-AAC" or context.profile == "HE-AACv2":
        rate //= 2  # what is coded, of which the decoder makes twice as much
        channels = 1 if context.profile == "HE-AACv2" else channels
    if rate not in AAC_RATES or not 0 < channels <= 8:
        return None
    return _specific_config(_AAC_LC, AAC_RATES.index(rate), 7 if channels == 8 else channels)


def _specific_config(object_type: int, rate: int, channels: int) -> bytes:
    return (object_type << 11 | rate << 7 | channels << 3).to_bytes(2, "big")


def is_aac_without_config(stream: Stream) -> bool:
    """Whether each packet of a stream has an ADTS header, as there is no configuration for all."""
    context: Any = stream.codec_context
    if context is None or context.codec.canonical_name != "aac":
        return False
    return not context.extradata


def coded_rate(codec: str, packet: bytes) -> bytes | None:
    """The bits of a packet's header that stand for the sample rate.

    Args:
        codec: FFmpeg's name.
        packet: Its first five bytes, or more.

    Returns:
        The bits, to be compared with those of other packets; None where there are none.

    Sources: ISO/IEC 11172-3, 2.4.1.3 (version and rate), and ATSC A/52, 5.3.1 (fscod).
    """
    if codec in ("mp2", "mp3") and len(packet) > 2 and packet[0] == 0xFF:
        return bytes([packet[1] & 0x18, packet[2] & 0x0C])
    if codec == "ac3" and packet[:2] == DOLBY_SYNC and len(packet) > 4:
        return bytes([packet[4] & 0xC0])
    return None
