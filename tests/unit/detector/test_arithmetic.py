"""The processor as results name it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from tussis.worker.detector import arithmetic


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("model name\t: A  CPU\nflags\t\t: sse2 avx2 avx512f avx512_vnni\n", "A CPU (avx512_vnni)"),
        ("model name\t: A CPU\nflags\t\t: sse2 avx2\n", "A CPU (avx2)"),
        ("model name\t: A CPU\nflags\t\t: sse2 xavx2\n", "A CPU"),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\n", "aarch64 (asimddp)"),
        ("", "aarch64"),
    ],
)
def test_name_and_instruction_set(text: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert arithmetic.processor.__wrapped__() == name


def test_without_the_file_it_is_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert arithmetic.processor.__wrapped__() == "arm64"
