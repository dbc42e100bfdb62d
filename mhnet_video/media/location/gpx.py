"""A GPX track of where a camera was, beside what it filmed."""

import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import islice
from os import PathLike
from pathlib import Path

import av
from av.error import FFmpegError
from av.stream import Discard

from mhnet_video.errors import MHNetVideoError, ReadError, WriteError
from mhnet_video.locator import shown
from mhnet_video.media.location.gopro import gopro_positions
from mhnet_video.media.location.positions import Position, nmea_positions, novatek_position
from mhnet_video.media.location.telemetry import Telemetry, telemetry_of
from mhnet_video.media.output_file import OutputFile, why_unwritable

_MOST_BYTES = 16 << 20
"""Of one box that is looked at; an hour of sentences has less than 1 MB."""
_MOST_POSITIONS = 1 << 18
"""Most positions that are held of a file. A GoPro has eighteen in a second, so that these last four
hours; its files end after half an hour."""
_BLOCK_BYTES = 256
"""Of Novatek's blocks, what has the position in it."""
_LONGEST_PAUSE = timedelta(seconds=5)
"""Between positions of one segment of a track; cameras have one in a second."""


def track_path(destination: str | PathLike[str]) -> Path:
    """Where the track of an output is."""
    return Path(destination).with_suffix(".gpx")


def read_positions(path: str | PathLike[str]) -> list[Position]:
    """The positions of a file in their order; none of fixes that a camera did not have.

    Args:
        path: A video file.

    Raises:
        ReadError: It cannot be read.
    """
    try:
        found = telemetry_of(path)
        positions = [*islice(_beside_the_tracks(found), _MOST_POSITIONS)]
        if not positions:
            positions = [*islice(_in_tracks(path), _MOST_POSITIONS)]
    except (OSError, FFmpegError) as error:
        reason = error.strerror or str(error)
        raise ReadError(f"{shown(path)} cannot be read: {reason}.") from error
    return positions


def save_gpx(
    sources: Sequence[str | PathLike[str]],
    destination: str | PathLike[str],
    *,
    overwrite: bool = False,
) -> int:
    """Write the positions of video files as one GPX track, with times and speeds.

    Where positions are missing for some seconds, or the clock was set back, another segment of the
    track begins.

    Args:
        sources: The video files, in order.
        destination: File to create; there is none where there are no positions.
        overwrite: Whether an existing one may be replaced.

    Returns:
        How many positions it has.

    Raises:
        ReadError: A source cannot be read.
        WriteError: The destination exists, or cannot be written.
        MHNetVideoError: The extra `gpx` is not installed.
    """
    check_gpx()
    positions = [position for source in sources for position in read_positions(source)]
    if not positions:
        return 0
    output = OutputFile(destination, overwrite=overwrite)
    try:
        output.write(_to_gpx(positions).encode())
        output.commit()
    except OSError as error:
        reason = why_unwritable(error)
        raise WriteError(f"{shown(destination)} cannot be written: {reason}.") from error
    finally:
        output.discard()
    return len(positions)


def check_gpx() -> None:
    """Find out whether GPX can be written, before any work is done.

    Raises:
        MHNetVideoError: The extra `gpx` is not installed.
    """
    try:
        import gpxpy  # noqa: F401
    except ImportError as error:
        raise MHNetVideoError(
            "positions are written with gpxpy, which is not installed; "
            "pip install 'mhnet-video[gpx]', or leave --gpx out."
        ) from error


def _to_gpx(positions: list[Position]) -> str:
    from gpxpy.gpx import GPX, GPXTrack, GPXTrackPoint, GPXTrackSegment

    gpx, track = GPX(), GPXTrack()
    gpx.creator = "mhnet-video"
    gpx.tracks.append(track)
    last = None
    for each in positions:
        if last is None or not timedelta() <= each.time - last <= _LONGEST_PAUSE:
            track.segments.append(GPXTrackSegment())
        last = each.time
        point = GPXTrackPoint(each.latitude, each.longitude, each.elevation, each.time)
        point.speed, point.course = each.speed, each.course  # type: ignore[assignment]
        track.segments[-1].points.append(point)
    # the last version that has a place for speeds
    return gpx.to_xml(version="1.0")


def _beside_the_tracks(found: Telemetry) -> Iterator[Position]:
    if not found:
        return
    extents = found.blocks or sorted([*found.in_index, *found.in_user_data, *found.outside])
    with open(found.path, "rb") as file:
        sentences = b""
        for extent in extents:
            file.seek(extent.start)
            data = file.read(min(extent.size, _BLOCK_BYTES))
            if b"freeGPS " in data[:16]:
                position = novatek_position(data)
                if position is not None:
                    yield position
            elif len(sentences) < _MOST_BYTES:
                sentences += data + file.read(min(extent.size, _MOST_BYTES) - len(data))
        yield from nmea_positions(sentences)


def _in_tracks(path: str | PathLike[str]) -> Iterator[Position]:
    """Positions in a telemetry track of GoPro's, or in NMEA sentences among subtitles."""
    # not as it is: `12:30:45.mp4` would be an address
    name = os.path.join(os.getcwd(), os.fspath(path))
    with av.open(name, metadata_errors="surrogateescape") as container:
        wanted = [s for s in container.streams if s.type in ("data", "subtitle")]
        for stream in container.streams:
            if stream not in wanted:
                stream.discard = Discard.all
        if not wanted:
            return
        for packet in container.demux(wanted):
            if not packet.size or packet.size > _MOST_BYTES:
                continue
            data = bytes(packet)
            if data[:4] == b"DEVC":
                seconds = float((packet.duration or 0) * (packet.time_base or 0))
                positions: Iterator[Position] = gopro_positions(data, seconds or 1.0)
            else:
                positions = nmea_positions(data)
            yield from positions
