"""The server of the live page: one event loop serves the page and WebRTC.

Encoding, snapshots and keys run on its threads.
"""

from functools import partial

from mhnet_video.live.web.page import Page
from mhnet_video.live.web.pictures import MAX_SIZE, PictureStream
from mhnet_video.live.web.routes import Served, make_live
from mhnet_video.live.web.webrtc import WebRtc
from mhnet_video.web.access import ListenAddress, is_own
from mhnet_video.web.server import WebServer


class PageServer(WebServer):
    """Serves the live page until it is closed.

    Args:
        address: Where to listen.
        page: What is served.

    Raises:
        WriteError: The address cannot be listened at.
    """

    def __init__(self, address: ListenAddress, page: Page) -> None:
        self.pictures = PictureStream(page.frames)
        # this machine itself has bandwidth enough for JPEG, which is better, and the ports that
        # WebRTC opens can be reached from elsewhere
        self.webrtc = (
            None
            if is_own(address.host)
            else WebRtc(page.frames, is_for=page.is_for, shown=page.shown, max_size=MAX_SIZE)
        )
        """Sends pictures over WebRTC; None on a page for this machine only."""
        served = Served(page=page, pictures=self.pictures, webrtc=self.webrtc)
        background = [self.pictures.run] + ([self.webrtc.run] if self.webrtc is not None else [])
        super().__init__(address, partial(make_live, served), background)
