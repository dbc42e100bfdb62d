"""Errors of an output, each in one sentence."""

from mhnet_video.errors import MHNetVideoError, WriteError
from mhnet_video.media.formats.containers import Format
from mhnet_video.media.output_file import OutputFile, why_unwritable


def encoder_error(output: OutputFile, encoder: str, error: Exception) -> WriteError:
    """What went wrong while frames were encoded.

    Args:
        output: The output; an error of its disk comes first.
        encoder: FFmpeg's name.
        error: What was caught.
    """
    if output.error is not None:
        reason = why_unwritable(output.error)
        return WriteError(f"{output.name} cannot be written: {reason}.")
    if isinstance(error, MHNetVideoError):
        return WriteError(str(error))
    return WriteError(
        f"{output.name} cannot be written with the encoder {encoder} ({_reason(error)}); "
        "try another one, or another format."
    )


def muxer_error(
    output: OutputFile, encoder: str, container_format: Format, error: Exception
) -> WriteError:
    """What a container did not take.

    Args:
        output: The output; an error of its disk comes first.
        encoder: FFmpeg's name of what made the packets.
        container_format: The output's format.
        error: What was caught.
    """
    if output.error is not None or isinstance(error, MHNetVideoError):
        return encoder_error(output, encoder, error)
    label = container_format.label
    way = "choose another encoder" if label == "Matroska" else "end the output in .mkv"
    return WriteError(
        f"{output.name} cannot be written, as {label} does not take what comes from the "
        f"encoder {encoder} ({_reason(error)}); {way}."
    )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
