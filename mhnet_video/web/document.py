"""A page in one file, and what a browser may do with it."""

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import NamedTuple


class Document(NamedTuple):
    """The page as a browser gets it."""

    html: bytes
    policy: str
    """Its content security policy: to run its own script and style, and to ask only its server."""


def read_document(package: str, values: Mapping[str, str]) -> Document:
    """The `page.html` of a package.

    Args:
        package: Where it lies, as `mhnet_video.live.web`.
        values: What stands in the place of each `{{name}}`, as text and never as markup.
    """
    text = (files(package) / "page.html").read_text("utf-8")
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", html.escape(value))
    return Document(text.encode(), _policy(text))


def _policy(text: str) -> str:
    own = {
        kind: base64.b64encode(
            hashlib.sha256(re.findall(f"<{kind}>(.*)</{kind}>", text, re.S)[0].encode()).digest()
        ).decode()
        for kind in ("script", "style")
    }
    return (
        "default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; "
        f"script-src 'sha256-{own['script']}'; style-src 'sha256-{own['style']}'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
