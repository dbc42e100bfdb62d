"""Addresses as FFmpeg reads them, and as a person may see them: without what is secret in them.

Where a name and a password hold characters that end them for FFmpeg, nobody can tell where the
host begins; nothing but the kind of such an address is shown.
"""

import os
import re
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

HIDDEN = "***"
"""What stands for a secret."""

_ADDRESS = re.compile(r"([a-z][\w+.:-]*?)://([^/?#]*)(.*)", re.DOTALL | re.ASCII | re.IGNORECASE)
_HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]\\]*)(:\d*)?")
_QUERY = re.compile(r"[^?#]*\?[\w.-]+=", re.ASCII)
_KEYS = r"\w*(?:user|usr|login|pass|pwd|psw|token|auth|key|secret|sig|session|cred)\w*"
# recorders are told names and passwords in the path: /user=NAME_password=WORD_channel=1
_NAMED = re.compile(rf"({_KEYS}\s*=).*", re.DOTALL | re.IGNORECASE)
_VALUE = re.compile(rf"{_KEYS}\s*=(.*?)(?=[&;#\s]|_[a-z]+=|$)", re.IGNORECASE)
# of a stream's key in the path of RTMP the application remains
_APPLICATION = re.compile(r"/[\w.-]*(?=/.)")
# what is so short is part of many words
_MIN_LENGTH = 4

_said: dict[str, str] = {}
"""What is said instead of each secret that has been seen."""


class Locator(NamedTuple):
    """The parts of an address as FFmpeg reads them."""

    scheme: str
    """In lower case."""
    credentials: str
    """Name and password; empty where there are none."""
    host: str
    """With its port."""
    rest: str
    """Path, query and fragment."""

    @property
    def name(self) -> str:
        """The host without its port and brackets."""
        return self.host.rpartition("]")[0][1:] or self.host.partition(":")[0]

    @property
    def query(self) -> str:
        """What follows the first question mark."""
        return self.rest.partition("?")[2].partition("#")[0]

    @property
    def is_clear(self) -> bool:
        """Whether its host is certainly where FFmpeg looks for it."""
        before, at, _ = self.rest.rpartition("@")
        if self.scheme == "file":
            return True
        if _HOST.fullmatch(self.host) is None:
            return False
        if not at or _is_number(self.name):
            return True
        if _QUERY.match(self.rest.partition("@")[0]):
            return "." in self.name or self.scheme == "srt"
        return not self.credentials and ":" not in self.host + before


def is_address(text: str) -> bool:
    """Whether FFmpeg is to open an address, and not a file of this name."""
    return "://" in text and not os.path.exists(text)


def locate(text: str) -> Locator | None:
    """The parts of an address; None where it is none."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None:
        return None
    credentials, _, host = match[2].rpartition("@")
    return Locator(match[1].lower(), credentials, host, match[3])


def shown(source: str | os.PathLike[str]) -> str:
    """What a person is told for a file or an address.

    What is left out is kept out by `hide` from then on.
    """
    text = os.fspath(source)
    if os.path.exists(text):
        return text
    name = _shown(text)
    if name != text:
        _remember(text, name)
    return name


def learn(*sources: str | os.PathLike[str] | None) -> None:
    """Keep out what is secret in some of these, if they are addresses, from then on."""
    for source in sources:
        if source is not None:
            shown(source)


def hide(text: str) -> str:
    """The text without the secrets of all addresses that were shown so far."""
    # a long one may hold a short one
    for secret, instead in sorted(_said.copy().items(), key=lambda said: -len(said[0])):
        text = text.replace(secret, instead)
    return text


def clean(error: BaseException) -> None:
    """Take the secrets out of an error and those before it, as FFmpeg's hold the address."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        each.args = _clean(each.args)
        if isinstance(each, OSError) and isinstance(each.filename, str):
            with suppress(AttributeError):  # FFmpeg's errors take it from the others
                each.filename = hide(each.filename)
        each = each.__cause__ or each.__context__


def _clean(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_clean(each) for each in value)
    return hide(value) if isinstance(value, str) else value


def _is_number(name: str) -> bool:
    """Whether a host is told as a number, which no name of a person is."""
    try:
        return bool(ip_address(unquote(name)))
    except ValueError:
        return name == "localhost"


def _shown(text: str) -> str:
    parts = locate(text)
    if parts is None:
        # written wrongly: a letter before a colon is a drive
        if "://" in text or re.search(r"(?<!^\w):.*@", text, re.DOTALL):
            kind = re.match(r"\s*([a-z]{3,5}:)/", text, re.IGNORECASE)
            return f"{kind[1] if kind else ''}{HIDDEN}"
        return _without_named(text)
    scheme = text.strip().partition("://")[0]
    if not parts.is_clear:
        return f"{scheme}://{HIDDEN}"
    path = re.split(r"[?#]", parts.rest, maxsplit=1)[0]
    path = re.sub(r"[^/]*:[^/]*@.*", HIDDEN, path, flags=re.DOTALL)
    if parts.scheme.startswith("rtmp") and path.strip("/"):
        application = _APPLICATION.match(path)
        path = f"{application[0] if application else ''}/{HIDDEN}"
    return f"{scheme}://{parts.host}{_without_named(path)}"


def _without_named(path: str) -> str:
    return _NAMED.sub(rf"\1{HIDDEN}", path)


def _remember(text: str, name: str) -> None:
    """Find what is secret in an address, however it is understood, as it may turn up elsewhere."""
    body = text.partition("://")[2] or text
    secrets = {match[1] for match in _VALUE.finditer(body)}
    for place in (match.start() for match in re.finditer("@", body)):
        user, colon, password = body[:place].partition(":")
        secrets.add(password if colon else user)
        if user or password:
            _say(body[: place + 1], f"{HIDDEN}@")
    parts = locate(text)
    if parts is not None and parts.scheme.startswith("rtmp"):
        application = _APPLICATION.match(parts.rest)
        key = parts.rest[application.end() if application else 0 :].lstrip("/")
        secrets |= {key, re.split(r"[?#\s]", key)[0]}
    for secret in secrets:
        if len(secret) >= _MIN_LENGTH:
            _say(secret, HIDDEN)
    # a path loses one of its slashes
    _say(body, name.partition("://")[2] or HIDDEN)
    _say(text, name)


def _say(secret: str, instead: str) -> None:
    forms = {secret, secret.strip(), unquote(secret), quote(secret, safe="")}
    forms |= {repr(form)[1:-1] for form in forms} | {ascii(form)[1:-1] for form in forms}
    _said.update(dict.fromkeys(forms - {""}, instead))
