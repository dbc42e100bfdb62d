"""The server of a page: a thread with an event loop, and the limits of connections."""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from aiohttp import web

from mhnet_video.closing import Closing
from mhnet_video.errors import WriteError
from mhnet_video.web.access import Access, ListenAddress
from mhnet_video.web.application import HEADERS

_MAX_VISITORS = 64
"""Connections at a time; more are turned away."""
_HEADER_SECONDS = 10.0
"""In which a whole request header must come; also how long an idle connection is kept."""
_SEND_SECONDS = 10.0
"""In which a visitor must take what was sent; the connection is dead otherwise."""
_SEND_BUFFER_BYTES = 256 << 10
"""What the system holds for a slow reader: more would make it see old pictures."""
_LINGER_SECONDS = 1.0
"""How long the rest of a refused request is read and ignored, so that its answer arrives."""
_MAX_LINE_BYTES = 8 << 10
"""Of a request line."""
_MAX_FIELD_BYTES = 16 << 10
"""Of one header field; browsers send the cookies of all programs of a host."""
_MAX_FIELDS = 100
"""Header fields of a request."""
_CLOSE_SECONDS = 1.0
"""In which the server ends."""

# without a handler, warnings would go to the terminal
for _name in ("aiohttp", "aiortc"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class WebServer(Closing):
    """Serves an application until it is closed.

    Args:
        address: Where to listen.
        make: Makes the application for those who are admitted.
        background: What runs beside it, on the same event loop, and is cancelled at its end.

    Raises:
        WriteError: The address cannot be listened at.
    """

    def __init__(
        self,
        address: ListenAddress,
        make: Callable[[Access], web.Application],
        background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    ) -> None:
        try:
            self._socket = _listen(address)
        except OSError as error:
            raise WriteError(
                f"the page cannot be served at {address.host}:{address.port} "
                f"({_reason(error)}); name another port or address."
            ) from error
        self.port = int(self._socket.getsockname()[1])
        """The port it listens at."""
        access = Access(address._replace(port=self.port))
        self.token = access.token
        """What a visitor must know; empty where every visitor is of this machine."""
        self.link = _link(address.host, self.port, self.token)
        """What to open in a browser, with the token."""
        self._background = background
        self._runner = web.AppRunner(make(access), handler_cancellation=True)
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="mhnet-video page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the server; visitors are cut off."""
        with suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        # a visitor who goes away in the middle of anything is no error
        self._loop.set_exception_handler(lambda loop, context: None)
        await self._runner.setup()
        server: Any = self._runner.server
        listener = await self._loop.create_server(
            lambda: _VisitorConnection(server, self._loop), sock=self._socket
        )
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run()) for run in self._background]
            try:
                await self._stop.wait()
            finally:
                listener.close()
                for connection in server.connections:
                    connection.abort()
                for task in tasks:
                    task.cancel()
        await self._runner.app.cleanup()


class _VisitorConnection(web.RequestHandler):
    """A visitor's connection, and its limits."""

    __slots__ = ("_deadline", "_events", "_server", "_stream")

    def __init__(self, server: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            # counted from the connection's begin, whatever arrives: slow headers end with it
            keepalive_timeout=_HEADER_SECONDS,
            lingering_time=_LINGER_SECONDS,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_FIELD_BYTES,
            max_headers=_MAX_FIELDS,
            auto_decompress=False,  # a small body may become a large one
            # addresses of requests may hold the token
            access_log=None,  # type: ignore[arg-type]
        )
        self._server = server
        self._events = loop
        self._deadline: asyncio.TimerHandle | None = None
        # what it is named in the base class is gone while the last bytes wait to be sent
        self._stream: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        if len(self._server.connections) >= _MAX_VISITORS:
            transport.write(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n")
            transport.close()
            return
        self._stream = transport
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        # nothing waits here: what the system does not take is waited for
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._deadline = self._events.call_later(_SEND_SECONDS, self.abort)

    def resume_writing(self) -> None:
        self._stop_timer()
        super().resume_writing()

    def _stop_timer(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def abort(self) -> None:
        """End it at once, whatever is still to be sent."""
        if self._stream is not None:
            self._stream.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request, or could not be answered; nothing inside is shown."""
        if status >= 500:  # what is wrong with a request may hold the token
            self.log_exception("a request was not answered", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer was sent already")
        text = "this cannot be answered\n" if status >= 500 else "this is no request\n"
        response = web.Response(status=status, text=text, headers=HEADERS)
        response.force_close()
        return response


def _listen(address: ListenAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    is_dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    return socket.create_server(tuple(address), family=family, backlog=64, dualstack_ipv6=is_dual)


def _reason(error: OSError) -> str:
    """Why an address cannot be had; Python adds to the system's words what it did meanwhile."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return (error.strerror or str(error)).lower()
    return os.strerror(error.errno).lower()


def _link(host: str, port: int, token: str) -> str:
    if host in ("0.0.0.0", "::", ""):
        host = _name_of_this_machine()
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}/" + (f"?token={token}" if token else "")


def _name_of_this_machine() -> str:
    """The address by which other machines are likely to reach this one, or its name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # nothing is sent: the route to an address reserved for documentation is looked up
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
