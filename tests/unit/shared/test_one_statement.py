"""The text of a statement that psycopg need not parse."""

from __future__ import annotations

import pytest

from tussis.shared.store.one_statement import Statement


def test_each_name_has_one_number() -> None:
    statement = Statement("SELECT %(b)s::text, %(a)s, 7 %% 2, %(b)s")
    assert statement.text == b"SELECT $1::text, $2, 7 % 2, $1"
    assert statement.values({"a": 1, "b": "x", "unused": None}) == ["x", 1]


def test_a_missing_parameter_is_an_error() -> None:
    with pytest.raises(KeyError, match="a"):
        Statement("SELECT %(a)s").values({})
