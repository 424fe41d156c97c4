"""Addresses of servers in messages and logs, without the secrets in them.

It fails closed. A text that is not a plain URL is not shown at all, only the name of its setting: in a malformed URL
the password can be anywhere.
"""

from __future__ import annotations

import re
from typing import Final

# An @ ends the user and the password, and occurs nowhere else in a URL that is shown. So what is before the last @ of a
# text is never shown.
_URL: Final = re.compile(
    r"(?P<scheme>rediss?|unix|https?)://(?P<login>[^\s@/?#\\]*@)?"
    r"(?P<host>(?P<server>(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)?)"
    r"(?P<path>(?:/[A-Za-z0-9._~/-]*)?)(?:\?[^\s@#]*)?"
)
_DATABASE: Final = re.compile(r"/[0-9]{1,5}")
_LOGIN: Final = re.compile(r"(?<=://)[^\s\"'<>]*@")


def redacted(url: str, setting: str) -> str:
    """Scheme, host, port and path of a URL, with ``***@`` for user and password, and without options.

    Of the path of a broker, only a number is shown. Otherwise ``the address in SETTING``.
    """
    found = _URL.fullmatch(url)
    if found is None or not (found["server"] or (found["scheme"] == "unix" and found["path"])):
        return f"the address in {setting}"
    path = found["path"]
    if found["scheme"] in ("redis", "rediss") and not _DATABASE.fullmatch(path):
        path = ""
    return f"{found['scheme']}://{'***@' if found['login'] else ''}{found['host']}{path}"


def without_logins(text: str) -> str:
    """A text of a library with ``***@`` for the user and the password of every URL in it."""
    return _LOGIN.sub("***@", text)


def is_plain(url: str) -> bool:
    """Whether it is a URL (http, https) with neither user, password nor options, so that it can be shown whole."""
    found = _URL.fullmatch(url)
    return found is not None and found["scheme"] in ("http", "https") and redacted(url, "") == url
