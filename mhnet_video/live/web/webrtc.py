"""The page's pictures over WebRTC: H.264, encoded once for all who watch in this way.

It takes a fifth of the bandwidth of JPEG pictures, which matters on the way to other machines. A
browser for which it does not serve gets JPEG pictures, as do visitors after the first few. No other
server is asked for anything: there is no STUN and no TURN.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import aiortc
import av
import numpy as np
from av.codec.context import Flags
from av.video.frame import PictureType
from av.video.reformatter import ColorRange

from mhnet_video.color_spaces import MATRIX_NUMBERS
from mhnet_video.errors import MHNetVideoError
from mhnet_video.live.exchange import Latest
from mhnet_video.live.live_frame import LiveFrame
from mhnet_video.live.rendering import Painter, even_size, to_picture
from mhnet_video.live.web.pictures import newest_frames

_CLOCK = Fraction(1, 90_000)
"""The time base of RTP video, in seconds."""
_MAX_PEERS = 4
"""Each packet is encrypted for each peer: more would cost more than their JPEG pictures do."""
_ANSWER_SECONDS = 10.0
"""In which an offer must be answered."""
_CONNECT_SECONDS = 15.0
"""In which a peer must connect after its offer."""
_CLOSE_SECONDS = 0.5
"""In which all peers are closed."""
_MAX_WAITING = 8
"""Packets that wait for a peer; it needs a keyframe when there would be more."""
_KEY_SECONDS = 1.0
"""Between keyframes; a peer that has lost a packet for good sees nothing new until then."""
_OPTIONS = {
    "preset": "superfast",
    "tune": "zerolatency",
    "profile": "baseline",
    "crf": "23",
    "maxrate": "6M",
    "bufsize": "2M",
    "forced-idr": "1",
}
"""Of libx264."""
_MATRICES = MATRIX_NUMBERS | {"bt601": 6}
"""H.273's numbers of matrices; BT.601 goes by that of 525 lines, which has the same weights."""


class WebRtc:
    """Connections to browsers, all on one event loop.

    Args:
        frames: The newest frames.
        is_for: Whether the visitor with a key may see a frame.
        shown: Called with each frame that was sent.
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
        self._wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def peers(self) -> int:
        """Visitors who watch over WebRTC."""
        return len(self._peers)

    async def answer(self, offer: str, visitor: str = "") -> str:
        """Accept a browser's offer to receive, and send from then on.

        Args:
            offer: Its session description, with its addresses.
            visitor: The key of a visitor whose own camera is restored; empty for others.

        Returns:
            The session description to return.

        Raises:
            MHNetVideoError: The offer is not one, does not take H.264, or there are enough peers.
        """
        if re.findall(r"^m=(\w+)", offer, re.MULTILINE) != ["video"]:
            raise MHNetVideoError("an offer is of one video")
        if len(self._peers) >= _MAX_PEERS:
            raise MHNetVideoError("there are enough visitors over WebRTC")
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        track = self._peers[peer] = _PacketTrack(visitor)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                description = await _negotiate(peer, track, offer)
        except BaseException as error:
            await self._drop(peer)
            if isinstance(error, Exception):
                # what is wrong with an offer shows as any error
                raise MHNetVideoError("this offer does not serve") from error
            raise

        async def changed() -> None:
            if peer.connectionState in ("failed", "closed"):
                await self._drop(peer)

        peer.on("connectionstatechange", changed)
        asyncio.get_running_loop().call_later(_CONNECT_SECONDS, self._drop_if_late, peer)
        self._wanted.set()
        return description

    def _drop_if_late(self, peer: Any) -> None:
        if peer.connectionState != "connected" and peer in self._peers:
            task = asyncio.create_task(self._drop(peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _drop(self, peer: Any) -> None:
        is_known = self._peers.pop(peer, None) is not None
        if not self._peers:
            self._wanted.clear()
        if is_known:
            await peer.close()

    async def run(self) -> None:
        """Encode and send while there are peers, until the source ends."""
        encoder = _Encoder(self._max_size)
        async for frame in newest_frames(self._frames, self._wanted):
            is_key_needed = any(track.needs_key for track in self._connected())
            for packet in await asyncio.to_thread(encoder.encode, frame, is_key_needed):
                self._send(packet, frame)

    def _connected(self) -> list[Any]:
        return [track for peer, track in self._peers.items() if peer.connectionState == "connected"]

    def _send(self, packet: Any, frame: LiveFrame) -> None:
        """Pass a packet to all who may have it."""
        is_sent = False
        for track in self._connected():
            if track.needs_key and not packet.is_keyframe:
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

    async def close(self) -> None:
        """End all connections."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await asyncio.gather(*map(self._drop, list(self._peers)), return_exceptions=True)


async def _negotiate(peer: Any, track: Any, offer: str) -> str:
    transceiver = peer.addTransceiver(track, direction="sendonly")
    known = aiortc.RTCRtpSender.getCapabilities("video").codecs
    transceiver.setCodecPreferences([c for c in known if c.mimeType == "video/H264"])
    await peer.setRemoteDescription(aiortc.RTCSessionDescription(offer, "offer"))
    await peer.setLocalDescription(await peer.createAnswer())
    return str(peer.localDescription.sdp)


class _PacketTrack(aiortc.MediaStreamTrack):
    """What a connection takes packets from."""

    kind = "video"

    def __init__(self, visitor: str) -> None:
        super().__init__()
        self.visitor = visitor
        self.needs_key = True
        self.packets: asyncio.Queue[Any] = asyncio.Queue(_MAX_WAITING)

    async def recv(self) -> Any:
        return await self.packets.get()


class _Encoder:
    """Makes H.264 of frames before and after, side by side; not for several threads at once."""

    def __init__(self, max_size: tuple[int, int]) -> None:
        self._max_size = max_size
        self._painter = Painter("yuv420p")
        self._context: Any = None
        self._format: tuple[object, ...] = ()
        self._first_pts = 0
        self._last_pts = -1

    def encode(self, frame: LiveFrame, is_key_needed: bool) -> list[Any]:
        """The packets of a frame."""
        after = frame.after
        size = even_size(after, self._max_size)
        painted = [self._painter.paint(each, size) for each in (frame.before, after)]
        planes = [np.concatenate(parts, axis=1) for parts in zip(*painted, strict=True)]
        picture = to_picture(planes, "yuv420p")
        if self._format != (size, after.matrix):
            self._format = size, after.matrix
            self._context = _open(picture.width, picture.height, after.matrix)
            if self._last_pts < 0:
                self._first_pts = after.pts  # the times of a stream go on at another size
        seconds = (after.pts - self._first_pts) * after.time_base
        self._last_pts = picture.pts = max(round(seconds / _CLOCK), self._last_pts + 1)
        picture.time_base = _CLOCK
        if is_key_needed:
            picture.pict_type = PictureType.I
        packets = list(self._context.encode(picture))
        for packet in packets:
            packet.pts, packet.time_base = self._last_pts, _CLOCK
        return packets


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
