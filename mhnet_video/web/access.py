"""Where the page listens, and who may see it: this machine's visitors, or who knows the token."""

import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from ipaddress import ip_address
from typing import NamedTuple

from mhnet_video.errors import ConfigError
from mhnet_video.locator import shown

_EXTRA = ("aiohttp", "prometheus_client", "aiortc")
"""The packages of the extra `web`."""
_HOST = re.compile(r"\[([0-9a-fA-F:.]+)\](?::\d*)?|([^:\[\]]*)(?::\d*)?")
"""The name in a Host header, which may be followed by a port."""


class ListenAddress(NamedTuple):
    """Where the page listens."""

    host: str
    port: int
    """0 takes a free one."""


def parse_listen_address(text: str) -> ListenAddress:
    """`PORT`, `HOST:PORT` or `[HOST]:PORT`; the host defaults to this machine's own.

    Raises:
        ConfigError: It is written in another way.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ConfigError(f"a page is served at PORT or HOST:PORT, not at {shown(text)}")
    return ListenAddress(host or "127.0.0.1", int(port))


def check_installed() -> None:
    """Check that what serves the page is installed; imports none of it.

    Raises:
        ConfigError: It is not.
    """
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the page needs {', '.join(missing)}, not installed here: "
            "pip install 'mhnet-video[web]'"
        )


def is_own(host: str) -> bool:
    """Whether a host is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Access:
    """Admits requests.

    A page that only this machine reaches admits all that name this machine. Any other page admits
    requests that bring its token: in the query, in a cookie, or as a bearer token.

    Args:
        address: Where the page listens.
    """

    def __init__(self, address: ListenAddress) -> None:
        self.token = "" if is_own(address.host) else secrets.token_urlsafe(24)
        """What a visitor must know; empty where every visitor is of this machine."""
        # browsers send the cookies of one host to all of its ports
        self._cookie = f"mhnet_video_token_{address.port}"

    @property
    def cookie(self) -> str:
        """The value of Set-Cookie for a visitor who was admitted by the token."""
        return f"{self._cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"

    def refusal(self, headers: Mapping[str, str], query_tokens: Iterable[str]) -> str:
        """Why a request is refused, in a sentence; empty if it is admitted.

        Args:
            headers: Of the request.
            query_tokens: The tokens in its query.
        """
        if not self.token:
            # a foreign page must not reach this one by a name of its own that leads here
            match = _HOST.fullmatch(headers.get("Host", ""))
            is_ours = match is not None and is_own(match[1] or match[2] or "")
            return "" if is_ours else "this page is for this machine only"
        brought = [*query_tokens, *self._tokens_of(headers)]
        right = self.token.encode()
        # all are compared: how long it takes must not depend on which one is right
        if any([hmac.compare_digest(each.encode("utf-8", "replace"), right) for each in brought]):
            return ""
        return "the link that mhnet-video has printed leads here"

    def _tokens_of(self, headers: Mapping[str, str]) -> Iterable[str]:
        # by hand: a library gives up at the first malformed cookie of another program
        for cookie in headers.get("Cookie", "").split(";"):
            name, _, value = cookie.strip().partition("=")
            if name == self._cookie:
                yield value
        kind, _, bearer = headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            yield bearer.strip()


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """Whether a request was made by a page of another origin."""
    origin = headers.get("Origin")
    return origin is not None and origin.partition("://")[2] != headers.get("Host")
