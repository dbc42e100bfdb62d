"""The HTTP routes of the page for files."""

import asyncio
import json
import math
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from mhnet_video.app.clips import SILENCE_SECONDS, Clips, ClipState, UploadedClip
from mhnet_video.app.pictures import jpeg_of
from mhnet_video.errors import MHNetVideoError
from mhnet_video.media.formats.suffixes import VIDEO_SUFFIXES
from mhnet_video.media.output_file import why_unwritable
from mhnet_video.tasks import DEFAULT, TASKS
from mhnet_video.web.access import Access, ListenAddress
from mhnet_video.web.application import json_of, make_application
from mhnet_video.web.document import Document, read_document
from mhnet_video.web.server import WebServer

_MAX_JSON_BYTES = 8 << 10
"""Largest request with a JSON object."""
_MAX_PICTURES = 2
"""Pictures that are decoded at the same time; each keeps a core busy for up to a second."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FilePage:
    """What the routes serve."""

    clips: Clips
    keep_in: Path | None
    """Folder that keeps the results when the page ends; None to keep none."""
    pictures: asyncio.Semaphore
    """Limits the pictures that are decoded at the same time."""


_PAGE = web.AppKey("page", FilePage)
"""Key of the `FilePage` in the application."""
_routes = web.RouteTableDef()
"""The paths of the page."""


class AppServer(WebServer):
    """Serves the page for files until it is closed.

    Args:
        address: Where to listen.
        clips: The clips.
        keep_in: Folder that keeps the results when the page ends; None to keep none.

    Raises:
        WriteError: The address cannot be listened at.
    """

    def __init__(self, address: ListenAddress, clips: Clips, keep_in: Path | None = None) -> None:
        super().__init__(address, partial(_make_app, clips, keep_in))


def _make_app(clips: Clips, keep_in: Path | None, access: Access) -> web.Application:
    application = make_application(access, _document(), _routes, max_body_bytes=_MAX_JSON_BYTES)
    pictures = asyncio.Semaphore(_MAX_PICTURES)
    application[_PAGE] = FilePage(clips=clips, keep_in=keep_in, pictures=pictures)
    return application


def _document() -> Document:
    tasks = {name: task.removes for name, task in TASKS.items()}
    suffixes = ",".join(sorted(VIDEO_SUFFIXES))
    values = {"tasks": json.dumps(tasks), "task": DEFAULT, "suffixes": suffixes}
    return read_document("mhnet_video.app", values)


@_routes.get("/healthz")
async def _health(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


@_routes.get("/status.json")
async def _status(request: web.Request) -> web.Response:
    page = request.app[_PAGE]
    keep_in = str(page.keep_in) if page.keep_in is not None else ""
    return web.json_response({"clips": page.clips.to_dict(), "keep_in": keep_in})


@_routes.post("/clips")
async def _announce(request: web.Request) -> web.Response:
    """Announce an upload, which may be refused: a refusal during the upload would not arrive."""
    told = await json_of(request, _MAX_JSON_BYTES)
    name, size = told.get("name"), told.get("bytes")
    if not isinstance(name, str) or not isinstance(size, int) or isinstance(size, bool):
        raise web.HTTPBadRequest(text='the body must be as {"name": "clip.mp4", "bytes": 1000}\n')
    clips = request.app[_PAGE].clips
    try:
        clip = await asyncio.to_thread(clips.announce, name, size)
    except MHNetVideoError as error:
        raise _refusal(error) from error
    except OSError as error:
        raise _insufficient(f"nothing can be uploaded: {why_unwritable(error)}.") from error
    return web.json_response({"id": clip.id})


@_routes.put("/clips/{id}")
async def _upload(request: web.Request) -> web.Response:
    """Receive a clip, and write it to the disk as it arrives."""
    clips, clip = request.app[_PAGE].clips, _clip_of(request)
    if request.content_type != "application/octet-stream":
        raise web.HTTPUnsupportedMediaType(
            text="the content type must be application/octet-stream\n"
        )
    if clip.state is not ClipState.UPLOADING or clip.received_bytes:
        raise web.HTTPConflict(text=f"{clip.name} has been uploaded already\n")
    if request.content_length != clip.size_bytes:
        raise web.HTTPBadRequest(text=f"{clip.name} does not have the size that was announced\n")
    try:
        await _receive(request, clips, clip)
    except FileExistsError as error:  # as when a browser asks twice, before anything has come
        raise web.HTTPConflict(text=f"{clip.name} is being uploaded already\n") from error
    except OSError as error:
        if isinstance(error, ConnectionError):
            clips.drop(clip)
            raise
        reason = f"{clip.name} was not uploaded: {why_unwritable(error)}."
        clips.fail(clip, reason)
        raise _insufficient(reason) from error
    except BaseException:
        clips.drop(clip)
        raise
    await asyncio.to_thread(clips.check, clip)
    return web.Response(status=204)


async def _receive(request: web.Request, clips: Clips, clip: UploadedClip) -> None:
    with open(clip.source, "xb", buffering=0) as file:
        while clip.received_bytes < clip.size_bytes:
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    data = await request.content.readany()
            except TimeoutError as error:
                raise web.HTTPRequestTimeout(
                    text=f"{clip.name}: no data arrived for {SILENCE_SECONDS:.0f} s\n"
                ) from error
            if clip.stop.is_set() or not data:
                raise web.HTTPGone(text=f"{clip.name} was removed\n")
            rest = memoryview(data)
            while rest:
                rest = rest[await asyncio.to_thread(file.write, rest) :]
            clips.received(clip, len(data))


@_routes.post("/clips/{id}/restore")
async def _restore(request: web.Request) -> web.Response:
    told, clip = await json_of(request, _MAX_JSON_BYTES), _clip_of(request)
    try:
        request.app[_PAGE].clips.enqueue(
            clip, told.get("task"), told.get("strength"), told.get("keep")
        )
    except MHNetVideoError as error:
        raise _refusal(error) from error
    return web.Response(status=204)


@_routes.post("/clips/{id}/cancel")
async def _cancel(request: web.Request) -> web.Response:
    await json_of(request)
    request.app[_PAGE].clips.cancel(_clip_of(request))
    return web.Response(status=204)


@_routes.delete("/clips/{id}")
async def _remove(request: web.Request) -> web.Response:
    await asyncio.to_thread(request.app[_PAGE].clips.remove, _clip_of(request))
    return web.Response(status=204)


@_routes.get("/clips/{id}/picture.jpg")
async def _picture(request: web.Request) -> web.Response:
    """A frame of a clip, with the restored frame beside it if there is a result."""
    clip = _clip_of(request)
    if clip.shape is None:
        raise web.HTTPNotFound(text="there is no picture yet\n")
    paths = [clip.source]
    if clip.result is not None and request.query.get("view") != "before":
        paths.append(clip.result)
    seconds = 0.0
    with suppress(ValueError):
        seconds = float(request.query.get("at", "0"))
    if not math.isfinite(seconds) or seconds < 0:
        raise web.HTTPBadRequest(text="a time must be a number of seconds, 0 or more\n")
    seconds = min(seconds, clip.shape.seconds)
    async with request.app[_PAGE].pictures:
        try:
            jpeg = await asyncio.to_thread(jpeg_of, paths, seconds)
        except MHNetVideoError as error:
            raise _refusal(error, clip) from error
    return web.Response(body=jpeg, content_type="image/jpeg")


@_routes.get("/clips/{id}/result")
async def _result(request: web.Request) -> web.StreamResponse:
    clip = _clip_of(request)
    if clip.result is None or not clip.result.is_file():
        raise web.HTTPNotFound(text="there is no result\n")
    response = web.FileResponse(clip.result)
    response.content_type = "application/octet-stream"
    response.headers["Content-Disposition"] = _attachment(clip.result_name)
    return response


def _attachment(name: str) -> str:
    """The header that names a download, in ASCII and in UTF-8. RFC 6266."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _clip_of(request: web.Request) -> UploadedClip:
    clip = request.app[_PAGE].clips.get(request.match_info["id"])
    if clip is None:
        raise web.HTTPNotFound(text="this clip was removed\n")
    return clip


def _refusal(error: MHNetVideoError, clip: UploadedClip | None = None) -> web.HTTPException:
    said = str(error)
    if clip is not None:
        said = said.replace(str(clip.source), clip.name)
    return web.HTTPUnprocessableEntity(text=f"{said}\n")


def _insufficient(reason: str) -> web.HTTPException:
    return web.HTTPInsufficientStorage(text=f"{reason}\n")
