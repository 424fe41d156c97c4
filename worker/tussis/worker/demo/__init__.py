"""``tussis demo``: one run of the whole pipeline, on the embedded servers, with synthetic or given recordings."""

from pathlib import Path
from typing import Final

#: The default data folder, below the current folder.
DEFAULT_DATA: Final = Path(".tussis") / "demo"
