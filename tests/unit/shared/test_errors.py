"""The errors: one stable class name each, and a message of their own."""

from __future__ import annotations

import pytest

from tussis.shared import errors
from tussis.shared.errors import CallerError, OperatorError, PermanentError, TransientError, TussisError

_ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TussisError)]
_BASES = {TussisError, CallerError, TransientError, PermanentError, OperatorError}
_FACTS = [kind for kind in _ALL if kind not in _BASES]


def test_no_two_facts_share_a_name() -> None:
    names = [kind.error_class for kind in _FACTS]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", _FACTS, ids=lambda kind: kind.__name__)
def test_a_fact_has_one_kind_and_a_default_message(kind: type[TussisError]) -> None:
    assert sum(issubclass(kind, base) for base in (CallerError, TransientError, PermanentError, OperatorError)) == 1
    assert str(kind())
    assert "\n" not in str(kind())
    assert str(kind("told so")) == "told so"
