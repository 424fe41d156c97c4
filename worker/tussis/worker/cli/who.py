"""Who changes the deployment: the text of the option --by, which is stored with the change."""

from __future__ import annotations

import getpass
import socket

from tussis.shared.text import printable

#: Characters of the stored text.
_BY = 200


def who_of(by: str | None) -> str:
    """The text of --by, or user@host. Raises :class:`InvalidJob`."""
    from tussis.shared.errors import InvalidJob

    who = by if by is not None else f"{_user()}@{socket.gethostname()}"
    if not who.strip() or len(who) > _BY or printable(who) != who:
        raise InvalidJob(f"--by takes 1 to {_BY} printable characters")
    return who


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, the user may have no name
        return "unknown"
