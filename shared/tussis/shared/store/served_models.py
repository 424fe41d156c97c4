"""The models that workers serve."""

from __future__ import annotations

from sqlalchemy import Connection, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from tussis.shared.errors import ModelConflict
from tussis.shared.store.active_models import take_over
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.tables.models import models


def model_id_of(connection: Connection, facts: ModelFacts) -> int:
    """The id of the model. Registers the model if the database does not have it. Raises as :func:`register_model`."""
    if (found := find_model(connection, facts)) is not None:
        return found
    model_id = register_model(connection, facts)
    take_over(connection, model_id)
    return model_id


def find_model(connection: Connection, facts: ModelFacts) -> int | None:
    """The id of the model; None if the database does not have it."""
    return connection.execute(
        select(models.c.id).where(
            models.c.sha256 == facts.sha256, models.c.name == facts.name, models.c.version == facts.version
        )
    ).scalar_one_or_none()


def known_models(connection: Connection) -> list[str]:
    """``name@version`` of every model that a worker has served."""
    rows = connection.execute(select(models.c.name, models.c.version).order_by(models.c.name, models.c.version))
    return [f"{row.name}@{row.version}" for row in rows]


def register_model(connection: Connection, facts: ModelFacts) -> int:
    """Register the model or update its row; returns its id.

    The combination of name, version and file never changes. The row gets the other values of the manifest at each call.
    Raises :class:`ModelConflict` if the name and version are registered with another file, or the file with another
    name or version.
    """
    changing = {
        "profile": facts.profile,
        "threshold": float(facts.threshold),
        "provenance": facts.provenance,
        "parent": facts.parent,
    }
    connection.execute(
        insert(models)
        .values(
            name=facts.name,
            version=facts.version,
            sha256=facts.sha256,
            last_served_at=func.clock_timestamp(),
            **changing,
        )
        .on_conflict_do_nothing()
    )
    rows = connection.execute(
        select(models).where(
            or_(models.c.sha256 == facts.sha256, (models.c.name == facts.name) & (models.c.version == facts.version))
        )
    ).all()
    for row in rows:
        if (row.name, row.version) != (facts.name, facts.version):
            raise ModelConflict(
                f"the file {facts.sha256[:12]}... is registered as {row.name}@{row.version}, but its manifest says "
                f"{facts.name}@{facts.version}: restore the manifest, or serve another file"
            )
        if row.sha256 != facts.sha256:
            raise ModelConflict(
                f"{facts.name}@{facts.version} is registered with the file {row.sha256[:12]}..., but this file is "
                f"{facts.sha256[:12]}...: give the new file another version in its manifest"
            )
    (row,) = rows
    if {name: getattr(row, name) for name in changing} != changing:
        connection.execute(update(models).where(models.c.id == row.id).values(**changing))
    return int(row.id)
