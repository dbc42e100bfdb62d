"""What the keys of the window and of the page do to a live run."""

from mhnet_video.live.messages import Messages
from mhnet_video.live.recordings import Recordings
from mhnet_video.live.rendering import View
from mhnet_video.live.session import Live


class Controls:
    """Does what keys ask for.

    Args:
        live: Whose strength and models they change.
        view: What the window shows.
        recordings: Which they begin and end.
        messages: Takes what a person should know.
        may_page_record: Whether keys of the page may write files.
    """

    def __init__(
        self,
        live: Live,
        view: View,
        recordings: Recordings,
        messages: Messages,
        *,
        may_page_record: bool,
    ) -> None:
        self._live = live
        self._view = view
        self._recordings = recordings
        self._messages = messages
        self._may_page_record = may_page_record
        self.has_quit = False
        """Whether somebody has ended the run at the window."""

    def follow_window(self) -> None:
        """Do what the keys of the window have asked for since the last call."""
        wishes, self._view.wishes = self._view.wishes, []
        for wish in wishes:
            if wish == "quit":
                self.has_quit = True
            else:
                self._follow(wish, self._view.strength)

    def press_on_page(self, key: str) -> None:
        """Do what a key of the page asks for, on any thread."""
        if key == "r" and not self._may_page_record:
            self._messages.say("recording from the page needs --record FILE")
            return
        view = View(strength=self._live.strength)
        view.press(key)
        for wish in view.wishes:
            if wish != "quit":
                self._follow(wish, view.strength)

    def _follow(self, wish: str, strength: float) -> None:
        if wish == "strength":
            self._live.strength = self._view.strength = strength
        elif wish == "model":
            self._messages.say(self._live.next_model())
        elif wish == "record":
            self._recordings.toggle()
