"""What was decided is found again, whole and for the same facts only."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tussis.worker.detector.manifest import sha256_of
from tussis.worker.detector.tuning.graph_cache import Choice, Facts, GraphCache

GRAPH = b"a rewritten graph" * 1000
FACTS = Facts("a" * 64, 1, "onnxruntime 1.32.0", 1, "a processor")
CHOICE = Choice("a" * 64, "folded", sha256_of(GRAPH), 1.25)


@pytest.fixture
def cache(tmp_path: Path) -> GraphCache:
    cache = GraphCache(tmp_path / "not" / "there yet")
    cache.keep(FACTS, CHOICE, GRAPH)
    return cache


def decision(cache: GraphCache) -> Path:
    return cache.path / f"{FACTS.key}.json"


def test_what_was_kept_is_found(cache: GraphCache) -> None:
    assert cache.find(FACTS) == CHOICE
    assert cache.read(sha256_of(GRAPH)) == GRAPH


def test_a_decision_for_the_original_needs_no_file(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path)
    choice = Choice("a" * 64, "original", None, 1.0)

    assert cache.find(FACTS) is None
    cache.keep(FACTS, choice, None)

    assert cache.find(FACTS) == choice
    assert [file.suffix for file in cache.path.iterdir()] == [".json"]


@pytest.mark.parametrize("name", [field.name for field in fields(Facts)])
def test_with_any_other_fact_there_is_none(cache: GraphCache, name: str) -> None:
    old = getattr(FACTS, name)
    change: dict[str, Any] = {name: old + 1 if isinstance(old, int) else f"{old}x"}
    other = replace(FACTS, **change)
    assert cache.find(other) is None

    # Not even under its name.
    decision(cache).rename(cache.path / f"{other.key}.json")
    assert cache.find(other) is None


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", "{}", "\x00", '{"facts": {}, "choice": {}}', '{"facts": 1}', "[" * 9]
)
def test_a_damaged_decision_counts_as_missing(cache: GraphCache, text: str) -> None:
    decision(cache).write_text(text)

    assert cache.find(FACTS) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("file_sha256", "../../etc/passwd"),
        ("file_sha256", "b" * 64),
        ("file_sha256", 7),
        ("model_sha256", "0" * 64),
        ("ratio", "fast"),
        ("form", None),
    ],
)
def test_a_foreign_decision_counts_as_missing(cache: GraphCache, name: str, value: object) -> None:
    document = json.loads(decision(cache).read_text())
    document["choice"][name] = value
    decision(cache).write_text(json.dumps(document))

    assert cache.find(FACTS) is None


@pytest.mark.parametrize("data", [b"", GRAPH[:-1], GRAPH + b"x", b"another file"])
def test_a_damaged_graph_counts_as_missing_and_is_kept_anew(cache: GraphCache, data: bytes) -> None:
    file = cache.path / f"{CHOICE.file_sha256}.onnx"
    file.write_bytes(data)

    assert cache.find(FACTS) is None
    assert cache.read(sha256_of(GRAPH)) is None
    cache.keep(FACTS, CHOICE, GRAPH)
    assert cache.find(FACTS) == CHOICE
    assert cache.read(sha256_of(GRAPH)) == GRAPH


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = GraphCache(tmp_path / "file")

    assert cache.find(FACTS) is None
    with pytest.raises(OSError, match="Not a directory"):
        cache.keep(FACTS, CHOICE, GRAPH)
    with pytest.raises(OSError, match="Not a directory"), cache.deciding(FACTS):
        pass
