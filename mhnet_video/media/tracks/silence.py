"""Silence: samples to encode, and samples of PCM."""

import re
from fractions import Fraction

import av

MAX_JITTER_SECONDS = Fraction(1, 10)
"""Audio that comes later than its times say, by no more than this, has no gap before it."""
_PCM_BITS = {"64": 64, "32": 32, "24": 24, "16": 16, "8": 8, "law": 8}
"""Bits of a sample by what the name of a PCM codec holds."""
_PCM_BYTES = {"pcm_u8": 0x80, "pcm_alaw": 0xD5, "pcm_mulaw": 0xFF}
"""The byte of which silence consists, where it is not zero. Source: ITU-T G.711 for the laws."""


def silent_frame(sample_format: str, layout: str, rate: int, samples: int) -> av.AudioFrame:
    """A frame of silence, without a time.

    Args:
        sample_format: FFmpeg's name.
        layout: Likewise, of the channels.
        rate: Samples a second.
        samples: How many there are.

    Raises:
        ValueError: The layout has no name.
    """
    frame = av.AudioFrame(sample_format, layout, samples)
    byte = 0x80 if sample_format.startswith("u8") else 0
    for plane in frame.planes:
        plane.update(bytes([byte]) * plane.buffer_size)
    frame.sample_rate = rate
    return frame


def silent_sample(codec: str, channels: int) -> bytes | None:
    """One silent sample of each channel, as a codec stores it; None for codecs but PCM.

    Args:
        codec: FFmpeg's name.
        channels: How many there are.
    """
    bits = re.search("|".join(_PCM_BITS), codec) if codec.startswith("pcm_") else None
    if bits is None:
        return None
    return bytes([_PCM_BYTES.get(codec, 0)]) * (_PCM_BITS[bits[0]] // 8 * channels)
