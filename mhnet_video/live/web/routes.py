"""The answers to the page's requests, as routes of aiohttp."""

import asyncio
import json
from typing import Any

from aiohttp import web

from mhnet_video.errors import MHNetVideoError
from mhnet_video.live.browser_camera import MAX_BYTES, Visitors
from mhnet_video.live.web.metrics import CONTENT_TYPE
from mhnet_video.live.web.page import SNAPSHOTS, Page
from mhnet_video.live.web.pictures import BOUNDARY, Picture, PictureStream
from mhnet_video.live.web.webrtc import WebRtc

_MAX_JSON_BYTES = 1024
"""Of a request with a JSON object."""
_MAX_OFFER_BYTES = 32 << 10
"""Of a WebRTC offer."""
_BODY_SECONDS = 10.0
"""In which the whole body of a request must come."""
_KEYS = ("+", "-", "m", "r")
"""What may be pressed."""


class PageRoutes:
    """What every visitor may ask for.

    Args:
        page: What is shown and told.
        html: The page itself.
        cookie: The value of Set-Cookie that comes with it; empty for none.
        pictures: The pictures as JPEG.
        webrtc: The pictures over WebRTC; None where they do not come that way.
    """

    def __init__(
        self,
        page: Page,
        *,
        html: bytes,
        cookie: str,
        pictures: PictureStream,
        webrtc: WebRtc | None,
    ) -> None:
        self._page = page
        self._html = html
        self._cookie = cookie
        self._pictures = pictures
        self._webrtc = webrtc

    def all(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.get("/", self._document),
            web.get("/healthz", self._health),
            web.get("/status.json", self._status),
            web.get("/metrics", self._metrics),
            web.get("/snapshot.jpg", self._snapshot),
            web.get("/stream.mjpg", self._stream),
            web.post("/control", self._control),
            web.post("/webrtc", self._connect),
        ]

    @property
    def _watching(self) -> int:
        peers = self._webrtc.peers if self._webrtc is not None else 0
        return self._pictures.watchers + peers

    async def _document(self, request: web.Request) -> web.Response:
        headers = {"Set-Cookie": self._cookie} if self._cookie else None
        return web.Response(
            body=self._html, content_type="text/html", charset="utf-8", headers=headers
        )

    async def _health(self, request: web.Request) -> web.Response:
        trouble = self._page.trouble
        return web.Response(text=f"{trouble or 'ok'}\n", status=503 if trouble else 200)

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(self._page.status(self._watching))

    async def _metrics(self, request: web.Request) -> web.Response:
        body = self._page.metrics(self._watching)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _snapshot(self, request: web.Request) -> web.Response:
        kind = request.query.get("view", "after")
        if kind not in SNAPSHOTS:
            raise web.HTTPBadRequest(text=f"a snapshot is one of {', '.join(SNAPSHOTS)}\n")
        jpeg = await asyncio.to_thread(self._page.snapshot, kind, _visitor(request))
        if jpeg is None:
            raise web.HTTPServiceUnavailable(text=f"{self._page.trouble or 'no picture yet'}\n")
        return web.Response(body=jpeg, content_type="image/jpeg")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Pictures for as long as the visitor takes them; always the newest."""
        kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        visitor = _visitor(request)
        seen: Picture | None = None
        with self._pictures.watched():
            while (picture := await self._pictures.newer(seen)) is not None:
                seen = picture
                if self._page.is_for(visitor, picture.frame):
                    await response.write(picture.part)
                    # until the system has all of it: a slow reader skips what comes meanwhile
                    await request.writer.drain()
                    self._page.shown(picture.frame)
        return response

    async def _control(self, request: web.Request) -> web.Response:
        key = await _field(request, "key")
        if key not in _KEYS:
            raise web.HTTPBadRequest(text='{"key": "+"}, "-", "m" or "r"\n')
        # a recording that ends is waited for
        await asyncio.to_thread(self._page.press, key)
        return await self._status(request)

    async def _connect(self, request: web.Request) -> web.Response:
        if self._webrtc is None:
            raise web.HTTPNotFound(text="there is no WebRTC here\n")
        offer = await _field(request, "sdp", _MAX_OFFER_BYTES)
        if not isinstance(offer, str):
            raise web.HTTPBadRequest(text='{"sdp": "v=0..."}\n')
        try:
            answer = await self._webrtc.answer(offer, _visitor(request))
        except MHNetVideoError as error:
            raise web.HTTPServiceUnavailable(text=f"{error}\n") from error
        return web.json_response({"sdp": answer})


class CameraRoutes:
    """How a visitor's own camera comes in.

    Args:
        cameras: Takes the pictures; None where the source is another one.
    """

    def __init__(self, cameras: Visitors | None) -> None:
        self._cameras = cameras

    def all(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.post("/camera/begin", self._begin),
            web.post("/camera", self._put),
            web.post("/camera/end", self._end),
        ]

    async def _begin(self, request: web.Request) -> web.Response:
        await _body(request, "application/json", _MAX_JSON_BYTES)
        if self._cameras is None:
            raise web.HTTPNotFound(text="visitors' cameras are not asked for here\n")
        key = self._cameras.enter()
        if not key:
            raise web.HTTPConflict(text="another visitor's camera is being restored\n")
        return web.json_response({"visitor": key})

    async def _put(self, request: web.Request) -> web.Response:
        key = request.headers.get("X-Visitor", "")
        number = request.headers.get("X-Number", "")
        # before anything is read
        if self._cameras is None or not self._cameras.is_present(key):
            raise web.HTTPForbidden(text="it is not this visitor's turn\n")
        if not number.isdecimal() or len(number) > 12:
            raise web.HTTPBadRequest(text="pictures have numbers\n")
        jpeg = await _body(request, "image/jpeg", MAX_BYTES)
        if not self._cameras.put(key, jpeg, int(number)):
            raise web.HTTPBadRequest(text="no JPEG of 16 to 1920 pixels a side\n")
        return web.Response(status=204)

    async def _end(self, request: web.Request) -> web.Response:
        key = await _field(request, "visitor")
        if self._cameras is not None and isinstance(key, str):
            self._cameras.leave(key)
        return web.Response(status=204)


def _visitor(request: web.Request) -> str:
    """The key of a visitor whose own camera is restored; empty for others."""
    return request.query.get("visitor", "")


async def _body(request: web.Request, kind: str, max_bytes: int) -> bytes:
    """The body of a request; no foreign page may send one of these kinds unasked."""
    if request.content_type != kind:
        raise web.HTTPUnsupportedMediaType(text=f"{kind}, please\n")
    length = request.content_length
    if length is None or length > max_bytes:
        raise web.HTTPRequestEntityTooLarge(max_bytes, length or 0, text="too long\n")
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text="too slow\n") from error


async def _field(request: web.Request, name: str, max_bytes: int = _MAX_JSON_BYTES) -> Any:
    """A field of the JSON object that a request brings; None where it has none."""
    body = await _body(request, "application/json", max_bytes)
    try:
        return json.loads(body)[name]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
