"""The command that installs a missing extra. Tussis is not published, so pip needs its source folder or wheel."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Final

_DISTRIBUTION: Final = "tussis"


def pip_line(extras: str) -> str:
    """The command that adds ``extras`` (one, ``store``, or several, ``cpu,models``) to this installation.

    pip records the folder or wheel that it installed in ``direct_url.json`` (PEP 610). It writes no such file for a
    package from an index.
    """
    # Imported here: they take 20 ms, and every command imports this module.
    from importlib import metadata
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    recorded = metadata.distribution(_DISTRIBUTION).read_text("direct_url.json")
    if recorded is None:
        return f"pip install '{_DISTRIBUTION}[{extras}]'"
    source = json.loads(recorded)
    address = urlsplit(source["url"])
    path = url2pathname(address.path)
    if address.scheme != "file" or not Path(path).exists():
        return f"pip install '.[{extras}]' in a checkout of Tussis"
    option = "-e " if source.get("dir_info", {}).get("editable") else ""
    return f"pip install {option}{shlex.quote(f'{path}[{extras}]')}"
