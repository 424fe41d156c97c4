"""Registering models."""

from __future__ import annotations

import pytest

from tests.support.store import model_facts, rows
from tussis.shared.errors import ModelConflict
from tussis.shared.store.repository import Store


def test_a_model_keeps_its_id_and_follows_its_manifest(store: Store, store_url: str) -> None:
    first = store.register_model(model_facts())
    assert store.register_model(model_facts()) == first
    assert store.register_model(model_facts(threshold=0.5, provenance="written anew", parent="x@1")) == first
    assert rows(store_url, "SELECT name, version, threshold, provenance, parent FROM models") == [
        ("cough", "1", 0.5, "written anew", "x@1")
    ]
    assert store.register_model(model_facts(version="2", sha256="b" * 64)) != first


def test_another_file_under_the_same_name_and_version_is_refused(store: Store) -> None:
    store.register_model(model_facts())
    with pytest.raises(
        ModelConflict, match=r"cough@1 is registered with the file aaaaaaaaaaaa\.\.\., but this file is bbbb"
    ):
        store.register_model(model_facts(sha256="b" * 64))


def test_the_same_file_under_another_name_is_refused(store: Store) -> None:
    store.register_model(model_facts())
    with pytest.raises(ModelConflict, match="is registered as cough@1, but its manifest says cough@2"):
        store.register_model(model_facts(version="2"))
