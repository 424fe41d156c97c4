"""``tussis demo``: the whole pipeline once over, on real servers, with recordings made here or given."""

from pathlib import Path
from typing import Final

#: Where its data lies unless told otherwise, below the current folder.
DEFAULT_DATA: Final = Path(".tussis") / "demo"
