"""Check the error class of a filter."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tussis.shared.store.repository import Store


def check_class(name: str | None, store: Store) -> None:
    """Raise :class:`click.BadParameter` for a class that is neither of this version nor of any failure in the store.

    The store may hold classes of an older or newer version of Tussis.
    """
    from tussis.shared.errors import error_classes
    from tussis.shared.store.records import FailureFilter

    if name is None or name in error_classes():
        return
    stored = store.failures_by_class(FailureFilter(include_discarded=True))
    if name in stored:
        return
    close = difflib.get_close_matches(name, sorted(error_classes() | stored.keys()), n=1)
    hint = f"did you mean {close[0]!r}?" if close else "list the classes with `tussis failures list --by-class`"
    raise click.BadParameter(f"no error class {name!r}: {hint}", param_hint="--class")
