"""What streams and files say about themselves, and what of it is true of an output, too."""

from av.container import InputContainer
from av.stream import Stream

from mhnet_video.media.fidelity import printable
from mhnet_video.media.formats.containers import Format
from mhnet_video.media.reading.source import COVER

_STALE_TAGS = ("encoder", "duration", "vendor_id", "rotate", "bps", "number_of_", "_statistics_")
"""How tags of a stream begin that a muxer writes about its own file; they are false in another."""
_STALE_VIDEO_TAGS = ("alpha_mode",)
"""Likewise of video that is encoded again."""
_STALE_FILE_TAGS = (
    *("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "location-"),
    *("wm/encodingsettings", "isvbr", "devicecon", "software"),
)
"""Likewise of a file."""
_QUICKTIMES_LANGUAGES = {
    "bod": "tib", "cym": "wel", "cze": "ces", "deu": "ger", "ell": "gre", "eus": "baq",
    "fre": "fra", "hye": "arm", "isl": "ice", "kat": "geo", "mkd": "mac", "msa": "may",
    "mya": "bur", "nld": "dut", "rum": "ron", "slo": "slk", "sqi": "alb", "swe": "sve",
    "zho": "chi",
}  # fmt: skip
"""QuickTime numbers its languages, and FFmpeg knows them by one of the two codes of ISO 639-2."""
_EMPTY_NAMES = ("VideoHandler", "SoundHandler", "SubtitleHandler", "DataHandler", "")
"""Names that FFmpeg's own muxers give to tracks that have none."""


def describe(stream: Stream) -> str:
    """A stream in a few words, such as `sound in stream 1 (aac, eng)`."""
    noun = {"audio": "sound", "subtitle": "subtitles", "attachment": "attachment"}.get(
        stream.type, stream.type
    )
    if stream.disposition & COVER:
        noun = "cover picture"
    details = [getattr(stream, "name", None)]
    details.append(stream.metadata.get("language"))
    shown = ", ".join(printable(d) for d in details if d and d != "und")
    return f"{noun} in stream {stream.index}" + (f" ({shown})" if shown else "")


def dress(
    target: Stream, source: Stream, container_format: Format, *, is_copied: bool = True
) -> None:
    """Give a stream of the output the language, title and disposition of the source's."""
    stale = _STALE_TAGS + (() if is_copied else _STALE_VIDEO_TAGS)
    tags = {k: v for k, v in source.metadata.items() if not k.lower().startswith(stale)}
    title = tags.get("title") or tags.pop("name", "")
    if title:
        tags["title"] = title
        # the title of a track has a place in MP4 that few programs read; this one many do
        if container_format.is_mp4 and tags.get("handler_name", "") in _EMPTY_NAMES:
            tags["handler_name"] = title
    if container_format.name == "mov" and (language := tags.get("language")):
        tags["language"] = _QUICKTIMES_LANGUAGES.get(language, language)
    target.metadata.update(tags)
    target.disposition = source.disposition


def file_metadata(source: InputContainer, remark: str = "") -> dict[str, str]:
    """What the source says about itself as a whole, without what is true of it only.

    Args:
        source: The source.
        remark: What the comment says besides what the source's says; nothing if empty.
    """
    tags = {
        key: value
        for key, value in source.metadata.items()
        if not key.lower().startswith(_STALE_FILE_TAGS)
    }
    if remark:
        key = next((key for key in tags if key.lower() == "comment"), "comment")
        tags[key] = "\n".join(filter(None, (tags.get(key), remark)))
    return tags
