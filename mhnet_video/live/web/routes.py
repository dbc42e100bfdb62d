"""The answers of the live page."""

import asyncio
from dataclasses import dataclass

from aiohttp import web

from mhnet_video.errors import MHNetVideoError
from mhnet_video.live.browser_camera import MAX_BYTES
from mhnet_video.live.web.metrics import CONTENT_TYPE
from mhnet_video.live.web.page import SNAPSHOTS, Page
from mhnet_video.live.web.pictures import BOUNDARY, JpegPart, PictureStream
from mhnet_video.live.web.webrtc import WebRtc
from mhnet_video.web.access import Access
from mhnet_video.web.application import body_of, json_of, make_application

_MAX_OFFER_BYTES = 32 << 10
"""Of a WebRTC offer."""
_KEYS = ("+", "-", "m", "r")
"""What may be pressed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """What requests are answered with."""

    page: Page
    pictures: PictureStream
    webrtc: WebRtc | None
    """None where pictures do not come that way."""

    @property
    def watching(self) -> int:
        """Visitors who watch, in any way."""
        return self.pictures.watchers + (self.webrtc.peers if self.webrtc is not None else 0)


_SERVED = web.AppKey("served", Served)
"""The key under which the application holds what it serves."""
_routes = web.RouteTableDef()
"""The paths of the page."""


def make_live(served: Served, access: Access) -> web.Application:
    """The application of the live page."""
    document = served.page.document(has_webrtc=served.webrtc is not None)
    application = make_application(access, document, _routes, max_body_bytes=MAX_BYTES)
    application[_SERVED] = served
    application.on_cleanup.append(_end)
    return application


async def _end(application: web.Application) -> None:
    webrtc = application[_SERVED].webrtc
    if webrtc is not None:
        await webrtc.close()


@_routes.get("/healthz")
async def _health(request: web.Request) -> web.Response:
    page = request.app[_SERVED].page
    # whoever asks needs no token, and learns neither the source's address nor paths
    trouble = "no pictures come" if page.trouble else ""
    if not trouble and page.recording_trouble():
        trouble = "the recording has failed"
    return web.Response(text=f"{trouble or 'ok'}\n", status=503 if trouble else 200)


@_routes.get("/status.json")
async def _status(request: web.Request) -> web.Response:
    return _status_of(request.app[_SERVED])


def _status_of(served: Served) -> web.Response:
    return web.json_response(served.page.status(served.watching))


@_routes.get("/metrics")
async def _metrics(request: web.Request) -> web.Response:
    served = request.app[_SERVED]
    body = served.page.metrics(served.watching)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


@_routes.get("/snapshot.jpg")
async def _snapshot(request: web.Request) -> web.Response:
    page = request.app[_SERVED].page
    kind = request.query.get("view", "after")
    if kind not in SNAPSHOTS:
        raise web.HTTPBadRequest(text=f"a snapshot is one of {', '.join(SNAPSHOTS)}\n")
    jpeg = await asyncio.to_thread(page.snapshot, kind, _visitor(request))
    if jpeg is None:
        raise web.HTTPServiceUnavailable(text=f"{page.trouble or 'no picture yet'}\n")
    return web.Response(body=jpeg, content_type="image/jpeg")


@_routes.get("/stream.mjpg")
async def _stream(request: web.Request) -> web.StreamResponse:
    """Pictures for as long as the visitor takes them; always the newest."""
    served = request.app[_SERVED]
    kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
    response = web.StreamResponse(headers={"Content-Type": kind})
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    visitor = _visitor(request)
    seen: JpegPart | None = None
    with served.pictures.watched():
        while (picture := await served.pictures.newer(seen)) is not None:
            seen = picture
            if served.page.is_for(visitor, picture.frame):
                await response.write(picture.part)
                # until the system has all of it: a slow reader skips what comes meanwhile
                await request.writer.drain()
                served.page.shown(picture.frame)
    return response


@_routes.post("/control")
async def _control(request: web.Request) -> web.Response:
    served, key = request.app[_SERVED], (await json_of(request)).get("key")
    if key not in _KEYS:
        raise web.HTTPBadRequest(text='{"key": "+"}, "-", "m" or "r"\n')
    # a recording that ends is waited for
    await asyncio.to_thread(served.page.press, key)
    return _status_of(served)


@_routes.post("/webrtc")
async def _connect(request: web.Request) -> web.Response:
    webrtc = request.app[_SERVED].webrtc
    if webrtc is None:
        raise web.HTTPNotFound(text="there is no WebRTC here\n")
    offer = (await json_of(request, _MAX_OFFER_BYTES)).get("sdp")
    if not isinstance(offer, str):
        raise web.HTTPBadRequest(text='{"sdp": "v=0..."}\n')
    try:
        return web.json_response({"sdp": await webrtc.answer(offer, _visitor(request))})
    except MHNetVideoError as error:
        raise web.HTTPServiceUnavailable(text=f"{error}\n") from error


@_routes.post("/camera/begin")
async def _begin_camera(request: web.Request) -> web.Response:
    await json_of(request)
    cameras = request.app[_SERVED].page.cameras
    if cameras is None:
        raise web.HTTPNotFound(text="visitors' cameras are not asked for here\n")
    key = cameras.enter()
    if not key:
        raise web.HTTPConflict(text="another visitor's camera is being restored\n")
    return web.json_response({"visitor": key})


@_routes.post("/camera")
async def _take_picture(request: web.Request) -> web.Response:
    cameras = request.app[_SERVED].page.cameras
    key = request.headers.get("X-Visitor", "")
    number = request.headers.get("X-Number", "")
    # before anything is read
    if cameras is None or not cameras.is_present(key):
        raise web.HTTPForbidden(text="it is not this visitor's turn\n")
    if not number.isdecimal() or len(number) > 12:
        raise web.HTTPBadRequest(text="pictures have numbers\n")
    jpeg = await body_of(request, "image/jpeg", MAX_BYTES)
    if not cameras.put(key, jpeg, int(number)):
        raise web.HTTPBadRequest(text="no JPEG of 16 to 1920 pixels a side\n")
    return web.Response(status=204)


@_routes.post("/camera/end")
async def _end_camera(request: web.Request) -> web.Response:
    key = (await json_of(request)).get("visitor")
    cameras = request.app[_SERVED].page.cameras
    if cameras is not None and isinstance(key, str):
        cameras.leave(key)
    return web.Response(status=204)


def _visitor(request: web.Request) -> str:
    """The key of a visitor whose own camera is restored; empty for others."""
    return request.query.get("visitor", "")
