"""The page's pictures over WebRTC: H.264, encoded once for all who watch in this way.

It takes a fifth of the room of JPEG pictures, which matters on the way to other machines. It needs
the extra `webrtc`; a browser for which it does not serve gets JPEG pictures, as do visitors after
the first few. No other server is asked for anything: there is no STUN and no TURN.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.video.frame import PictureType
from av.video.reformatter import ColorRange

from mhnet_video.color_spaces import MATRIX_NUMBERS
from mhnet_video.errors import MHNetVideoError
from mhnet_video.live.rendering import Painter, even_size, to_picture
from mhnet_video.live.session import Latest, LiveFrame

_CLOCK = Fraction(1, 90_000)
# each packet is encrypted for each of them: more would cost more than their JPEG pictures do
_MAX_PEERS = 4
_ANSWER_SECONDS = 10.0
_CONNECT_SECONDS = 15.0
_MAX_WAITING = 8
# who has lost a packet for good sees nothing new until then
_KEY_SECONDS = 1.0
_OPTIONS = {
    "preset": "superfast",
    "tune": "zerolatency",
    "profile": "baseline",
    "crf": "23",
    "maxrate": "6M",
    "bufsize": "2M",
    "forced-idr": "1",
}
_MATRICES = MATRIX_NUMBERS | {"bt601": 6}
"""H.273's numbers of matrices; BT.601 goes by that of 525 lines, which has the same weights."""


def has_webrtc() -> bool:
    """Whether the extra is installed."""
    try:
        import aiortc  # noqa: F401
    except ImportError:
        return False
    return True


class WebRtc:
    """Connections to browsers, on an event loop and a thread of their own.

    Args:
        frames: The newest frames.
        is_for: Whether the visitor with a key may see a frame.
        shown: Told of each frame that has been sent.
        max_size: Most width and height of each half of the picture.
    """

    def __init__(
        self,
        frames: Latest[LiveFrame],
        *,
        is_for: Callable[[str, LiveFrame], bool],
        shown: Callable[[LiveFrame], None],
        max_size: tuple[int, int],
    ) -> None:
        self._frames = frames
        self._is_for = is_for
        self._shown = shown
        self._max_size = max_size
        self._peers: dict[Any, Any] = {}
        self._wanted = threading.Event()
        self._is_closed = False
        self._loop = asyncio.new_event_loop()
        # a peer that goes away in the middle of anything is no error
        self._loop.set_exception_handler(lambda loop, context: None)
        self._threads = [
            threading.Thread(target=target, name=f"mhnet-video webrtc {name}", daemon=True)
            for target, name in ((self._loop.run_forever, "loop"), (self._encode, "pictures"))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def peers(self) -> int:
        """Visitors who watch over WebRTC."""
        return len(self._peers)

    def answer(self, offer: str, visitor: str = "") -> str:
        """Take a browser's offer to receive, and send from then on.

        Args:
            offer: Its description of the session, with its addresses.
            visitor: The key of a visitor whose own camera is restored; empty for others.

        Returns:
            The description to give back.

        Raises:
            MHNetVideoError: The offer is not one, does not take H.264, or there are enough peers.
        """
        future = asyncio.run_coroutine_threadsafe(self._answer(offer, visitor), self._loop)
        try:
            return future.result(_ANSWER_SECONDS)
        except MHNetVideoError:
            raise
        except (Exception, FutureTimeoutError) as error:
            # what is wrong with a description shows in any way
            future.cancel()
            raise MHNetVideoError("this offer does not serve") from error

    async def _answer(self, offer: str, visitor: str) -> str:
        import aiortc

        if re.findall(r"^m=(\w+)", offer, re.MULTILINE) != ["video"]:
            raise MHNetVideoError("an offer is of one video")
        if len(self._peers) >= _MAX_PEERS:
            raise MHNetVideoError("there are enough visitors over WebRTC")
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        track = self._peers[peer] = _make_track(visitor)
        try:
            transceiver = peer.addTransceiver(track, direction="sendonly")
            known = aiortc.RTCRtpSender.getCapabilities("video").codecs
            transceiver.setCodecPreferences([c for c in known if c.mimeType == "video/H264"])
            await peer.setRemoteDescription(aiortc.RTCSessionDescription(offer, "offer"))
            await peer.setLocalDescription(await peer.createAnswer())
        except BaseException:
            await self._drop(peer)
            raise

        async def changed() -> None:
            if peer.connectionState in ("failed", "closed"):
                await self._drop(peer)

        peer.on("connectionstatechange", changed)
        self._loop.call_later(_CONNECT_SECONDS, self._drop_if_late, peer)
        self._wanted.set()
        return str(peer.localDescription.sdp)

    def _drop_if_late(self, peer: Any) -> None:
        if peer.connectionState != "connected":
            self._loop.create_task(self._drop(peer))

    async def _drop(self, peer: Any) -> None:
        if self._peers.pop(peer, None) is not None:
            await peer.close()
        if not self._peers:
            self._wanted.clear()

    # pictures

    def _encode(self) -> None:
        painter = Painter("yuv420p")
        context: Any = None
        kind: tuple[object, ...] = ()
        number, first, last = 0, 0, -1
        while not self._is_closed and not self._frames.is_closed:
            if not self._wanted.wait(0.2):
                continue
            got = self._frames.get(number, 0.2)
            if got is None:
                continue
            number, frame = got
            size = even_size(frame.after, self._max_size)
            painted = [painter.paint(each, size) for each in (frame.before, frame.after)]
            planes = [np.concatenate(parts, axis=1) for parts in zip(*painted, strict=True)]
            picture = to_picture(planes, "yuv420p")
            if context is None or kind != (size, frame.after.matrix):
                kind = size, frame.after.matrix
                context = _open(picture.width, picture.height, frame.after.matrix)
                first, last = frame.after.pts, -1
            seconds = (frame.after.pts - first) * frame.after.time_base
            last = picture.pts = max(round(seconds / _CLOCK), last + 1)
            picture.time_base = _CLOCK
            connected = [
                t for p, t in list(self._peers.items()) if p.connectionState == "connected"
            ]
            if any(track.needs_key for track in connected):
                picture.pict_type = PictureType.I
            for packet in context.encode(picture):
                packet.pts, packet.time_base = last, _CLOCK
                self._loop.call_soon_threadsafe(self._spread, packet, frame)

    def _spread(self, packet: Any, frame: LiveFrame) -> None:
        """Give a packet to all who may have it; on the loop."""
        is_sent = False
        for peer, track in self._peers.items():
            is_lost = track.needs_key and not packet.is_keyframe
            if peer.connectionState != "connected" or is_lost:
                continue
            if not self._is_for(track.visitor, frame):
                track.needs_key = True
                continue
            try:
                track.packets.put_nowait(packet)
                track.needs_key = False
                is_sent = True
            except asyncio.QueueFull:
                track.needs_key = True
        if is_sent:
            self._shown(frame)

    def close(self) -> None:
        """End all connections."""
        if self._is_closed:
            return
        self._is_closed = True
        self._wanted.set()

        async def drop_all() -> None:
            for peer in list(self._peers):
                await self._drop(peer)

        with contextlib.suppress(Exception, FutureTimeoutError):
            asyncio.run_coroutine_threadsafe(drop_all(), self._loop).result(3)
        self._loop.call_soon_threadsafe(self._loop.stop)
        for thread in self._threads:
            thread.join(2)
        if not self._threads[0].is_alive():
            self._loop.close()


def _open(width: int, height: int, matrix: str) -> Any:
    context: Any = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = _CLOCK, Fraction(25)
    context.gop_size = round(25 * _KEY_SECONDS)
    context.max_b_frames = 0
    context.thread_count = 1
    context.color_range = int(ColorRange.MPEG)
    context.colorspace = _MATRICES.get(matrix, _MATRICES["bt601"])
    context.flags |= Flags.low_delay
    context.options = dict(_OPTIONS)
    context.open()
    return context


def _make_track(visitor: str) -> Any:
    """What a connection takes packets from."""
    from aiortc import MediaStreamTrack

    class Track(MediaStreamTrack):
        kind = "video"

        def __init__(self) -> None:
            super().__init__()
            self.visitor = visitor
            self.needs_key = True
            self.packets: asyncio.Queue[Any] = asyncio.Queue(_MAX_WAITING)

        async def recv(self) -> Any:
            return await self.packets.get()

    return Track()
