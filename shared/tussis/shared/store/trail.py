"""The audit trail: who did what to the deployment, and when. A row is written in the transaction of the deed.

Rows have hashes instead of keys (:mod:`tussis.shared.store.forget_functions`), and counts. A trigger refuses to change
or delete them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, text

from tussis.shared.forgetting import Target

_PAGE: Final = 1000


@dataclass(frozen=True)
class Deed:
    """A row of the trail. ``targets`` are hashes in hexadecimal."""

    number: int
    at: datetime
    action: str
    actor: str
    login: str
    targets: tuple[str, ...]
    details: dict[str, Any]


def note(
    connection: Connection,
    action: str,
    actor: str,
    targets: Sequence[bytes] = (),
    details: dict[str, Any] | None = None,
) -> None:
    """Write a row, in the transaction of the caller. ``details`` has no key and no person."""
    connection.execute(
        text("SELECT tussis_note(:action, :actor, CAST(:targets AS bytea[]), CAST(:details AS jsonb))"),
        {"action": action, "actor": actor, "targets": list(targets), "details": json.dumps(details or {})},
    )


def digests_of(connection: Connection, targets: Sequence[Target]) -> list[bytes]:
    """The hashes of objects, prefixes and persons, in the order of the targets."""
    found = connection.scalars(
        text(
            "SELECT tussis_forget_digest(named.kind, named.name) "
            "FROM unnest(CAST(:kinds AS text[]), CAST(:names AS text[])) WITH ORDINALITY AS named (kind, name, number) "
            "ORDER BY named.number"
        ),
        {"kinds": [target.kind.value for target in targets], "names": [target.name for target in targets]},
    )
    return [bytes(digest) for digest in found]


def deeds(engine: Engine, since: datetime | None, target: Target | None) -> Iterator[Deed]:
    """The rows of the trail, the oldest first, read in pages: since a time, and on one target."""
    conditions, parameters = ["id > :after"], dict[str, Any]()
    if since is not None:
        conditions.append("at >= :since")
        parameters["since"] = since
    if target is not None:
        conditions.append(":digest = ANY(targets)")
        with engine.connect() as connection:
            parameters["digest"] = digests_of(connection, [target])[0]
    statement = text(
        "SELECT id, at, action, actor, login, targets, details FROM audit_trail "
        f"WHERE {' AND '.join(conditions)} ORDER BY id LIMIT {_PAGE}"
    )
    after = 0
    while True:
        with engine.connect() as connection:
            rows = connection.execute(statement, {**parameters, "after": after}).all()
        for number, at, action, actor, login, targets, details in rows:
            yield Deed(number, at, action, actor, login, tuple(bytes(one).hex() for one in targets), details)
        if len(rows) < _PAGE:
            return
        after = rows[-1].id
