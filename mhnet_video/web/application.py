"""The aiohttp application of a page: what is refused before any route sees it, and bodies."""

import asyncio
import json
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from mhnet_video.web.access import Access, is_cross_site
from mhnet_video.web.document import Document

HEADERS = {
    "Server": "mhnet-video",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer."""

_MAX_JSON_BYTES = 1024
"""Of a request with a JSON object, where a route takes no more."""
_BODY_SECONDS = 10.0
"""In which the whole body of a request must come."""
_ACCESS = web.AppKey("access", Access)
"""The key under which an application holds whom it admits."""
_DOCUMENT = web.AppKey("document", Document)
"""The key under which it holds its page."""


def make_application(
    access: Access, document: Document, routes: web.RouteTableDef, *, max_body_bytes: int
) -> web.Application:
    """An application that has the page at `/`, and routes.

    All need to be admitted but `/healthz`.

    Args:
        access: Who is admitted.
        document: The page.
        routes: All other paths.
        max_body_bytes: Most that a body may have which is read as a whole.
    """
    # what each route takes is less, or as much
    application = web.Application(middlewares=[_admit], client_max_size=max_body_bytes + 1)
    application[_ACCESS] = access
    application[_DOCUMENT] = document
    application.router.add_get("/", _page)
    application.add_routes(routes)
    application.on_response_prepare.append(_add_headers)
    return application


@web.middleware
async def _admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path != "/healthz":
        access = request.app[_ACCESS]
        if refusal := access.refusal(request.headers, request.query.getall("token", [])):
            raise web.HTTPForbidden(text=f"{refusal}\n")
        if request.method not in ("GET", "HEAD") and is_cross_site(request.headers):
            raise web.HTTPForbidden(text="not from another page\n")
    return await handler(request)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    response.headers["Content-Security-Policy"] = request.app[_DOCUMENT].policy


async def _page(request: web.Request) -> web.Response:
    access = request.app[_ACCESS]
    page = request.app[_DOCUMENT].html
    response = web.Response(body=page, content_type="text/html", charset="utf-8")
    if access.token:
        response.headers["Set-Cookie"] = access.cookie
    return response


async def body_of(request: web.Request, kind: str, max_bytes: int) -> bytes:
    """The body of a request; no foreign page may send one of these kinds unasked.

    Args:
        request: The request.
        kind: The content type that it must have.
        max_bytes: Most that is read.
    """
    if request.content_type != kind:
        raise web.HTTPUnsupportedMediaType(text=f"the content type must be {kind}\n")
    length = request.content_length
    if length is None or length > max_bytes:
        raise web.HTTPRequestEntityTooLarge(
            max_bytes, length or 0, text=f"the body may have {max_bytes} bytes at most\n"
        )
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(
            text=f"the body did not arrive within {_BODY_SECONDS:.0f} s\n"
        ) from error


async def json_of(request: web.Request, max_bytes: int = _MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object that a request brings; an empty one for anything else."""
    body = await body_of(request, "application/json", max_bytes)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
