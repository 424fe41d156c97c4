"""What runs a model here: the provider, the graph and the processor. The last bits of a probability depend on them."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

#: The form of a graph that was not rewritten.
ORIGINAL: Final = "original"

#: Instruction sets for which onnxruntime has kernels of their own, the best first. Without VNNI, products of int8
#: saturate.
_SETS: Final = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "asimddp", "asimd")


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What runs a model."""

    provider: str
    """Execution provider of onnxruntime: cpu, cuda or tensorrt."""
    graph: str
    """:data:`ORIGINAL`, or the form of the rewritten graph."""
    processor: str
    """Name of the CPU with its instruction set, or of the GPU. Empty if it is unknown."""


@cache
def processor() -> str:
    """The CPU of this machine: its name, and in brackets the best of the instruction sets that onnxruntime uses."""
    name, flags = cpu_info()
    best = next((one for one in _SETS if one in flags.split()), None)
    return name if best is None else f"{name} ({best})"


def cpu_info() -> tuple[str, str]:
    """The name of the CPU (otherwise of the architecture) and its flags (otherwise an empty text)."""
    model, flags = "", ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            match name.strip():
                case "model name":
                    model = " ".join(value.split())
                case "flags" | "Features":
                    flags = value
                    break
    except OSError:
        pass
    return model or platform.machine(), flags
