"""The command that installs a missing extra. Tussis is not published: pip needs the folder or wheel it came from."""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

_DISTRIBUTION: Final = "tussis"


def pip_line(extras: str) -> str:
    """The command that adds ``extras`` (``store``, or several: ``cpu,models``) to this installation.

    pip records the folder or wheel that it installed in ``direct_url.json`` (PEP 610). For a package that came from an
    index it writes no such file.
    """
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
