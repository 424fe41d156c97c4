"""The reference model in the Tussis package, if the package has one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_NAME: Final = "tussis-reference.onnx"


def default_model() -> Path | None:
    """The path of the reference model in the package, with its manifest beside it. None if the package has none."""
    path = Path(__file__).parents[1] / "models" / _NAME
    return path if path.is_file() else None
