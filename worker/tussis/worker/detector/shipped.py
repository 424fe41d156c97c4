"""The model that comes with Tussis, when one does."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_NAME: Final = "tussis-reference.onnx"


def default_model() -> Path | None:
    """The reference model inside the package, its manifest beside it; None in a package without one."""
    path = Path(__file__).parents[1] / "models" / _NAME
    return path if path.is_file() else None
