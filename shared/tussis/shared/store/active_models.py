"""The active model: it answers the jobs that name no model.

The active model is the model with the latest ``models.active_at``. ``tussis models activate`` sets it. Before the first
activation, the newest registered model that workers serve takes over. A worker reports its model about every 15 s, and
counts as serving it for :data:`LIVE_S` after a report. All times are of the clock of the database.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from tussis.shared.errors import ActivationRefused, ModelUnknown
from tussis.shared.store.records import Activation, ActiveModel, KnownModel, ModelFacts

#: Seconds after its last report for which a model counts as served.
LIVE_S: Final = 60
#: Seconds for which the reports of other workers of the same model are not written. Every write makes a row version.
_REPORT_S: Final = 10
#: The advisory lock of every change of the active model and of the shadow model: the number of the owner's lock, and
#: one.
_LOCK: Final = 0x747573736974

_ACTIVE = text(
    "SELECT active_model.name || '@' || active_model.version AS model, active_model.explicit, active_model.since "
    "FROM active_model"
)
_SERVED = text(
    f"UPDATE models SET last_served_at = clock_timestamp() WHERE id = :model AND (last_served_at IS NULL "
    f"OR last_served_at < clock_timestamp() - interval '{_REPORT_S} seconds')"
)
_LEFT = text(
    "UPDATE models SET last_served_at = least(last_served_at, clock_timestamp() - "
    f"interval '{LIVE_S} seconds') WHERE name = :name AND version = :version AND sha256 = :sha256"
)
#: Whether a model must take over: nobody activated a model, it is the newest one that is served, and it is not active.
_TAKES_OVER = text(
    f"""
SELECT NOT EXISTS (SELECT FROM model_activations)
    AND :model = (
        SELECT models.id
        FROM models
        WHERE models.last_served_at > clock_timestamp() - interval '{LIVE_S} seconds'
        ORDER BY models.first_seen_at DESC, models.id DESC
        LIMIT 1
    )
    AND :model IS DISTINCT FROM (SELECT active_model.model_id FROM active_model)
"""
)
#: Later than every earlier time, also after the clock was set back.
_MAKE_ACTIVE = text(
    "UPDATE models SET active_at = greatest(clock_timestamp(), (SELECT max(latest.active_at) FROM models AS latest) "
    "+ interval '1 microsecond') WHERE id = :model"
)


def active_model(connection: Connection) -> ActiveModel | None:
    """The active model; None before the first worker has registered a model."""
    row = connection.execute(_ACTIVE).one_or_none()
    return None if row is None else ActiveModel(row.model, row.explicit, row.since)


def report_served(connection: Connection, model_id: int) -> None:
    """Store that a worker serves the model now."""
    connection.execute(_SERVED, {"model": model_id})


def take_over(connection: Connection, model_id: int) -> None:
    """Make the model the active one if it must take over.

    It waits for a change of the active model, so the transaction must hold no lock on a row of ``models`` before.
    """
    if connection.scalar(_TAKES_OVER, {"model": model_id}):
        lock_active(connection)
        # Another transaction may have changed the active model before this one got the lock.
        if connection.scalar(_TAKES_OVER, {"model": model_id}):
            connection.execute(_MAKE_ACTIVE, {"model": model_id})


def report_left(connection: Connection, facts: ModelFacts) -> None:
    """Store that a worker of the model ends. The other workers of the model report it again within seconds."""
    connection.execute(_LEFT, {"name": facts.name, "version": facts.version, "sha256": facts.sha256})


_MODELS = text(
    f"""
    SELECT
        models.id,
        models.name || '@' || models.version AS model,
        models.profile,
        models.threshold,
        models.parent,
        models.first_seen_at,
        models.last_served_at,
        coalesce(models.last_served_at > clock_timestamp() - interval '{LIVE_S} seconds', false) AS served,
        models.id IS NOT DISTINCT FROM (SELECT active_model.model_id FROM active_model) AS active,
        models.active_at,
        activation.activated_at,
        activation.activated_by,
        activation.forced,
        coalesce(results.number, 0) AS results
    FROM models
    LEFT JOIN LATERAL (
        SELECT *
        FROM model_activations
        WHERE model_activations.model_id = models.id
        ORDER BY model_activations.id DESC
        LIMIT 1
    ) AS activation ON true
    LEFT JOIN (
        SELECT analyses.model_id, count(*) AS number
        FROM analyses
        WHERE analyses.state = 'succeeded'
        GROUP BY analyses.model_id
    ) AS results ON results.model_id = models.id
    ORDER BY models.active_at DESC NULLS LAST, models.first_seen_at DESC, models.id DESC
    """
)


def models(connection: Connection) -> list[KnownModel]:
    """Every model that a worker has served, the active one first, then the one that was active before it."""
    return [
        KnownModel(
            model=row.model,
            active=row.active,
            served=row.served,
            results=row.results,
            profile=row.profile,
            threshold=row.threshold,
            parent=row.parent,
            first_seen_at=row.first_seen_at,
            last_served_at=row.last_served_at,
            active_at=row.active_at,
            activated_at=row.activated_at,
            activated_by=row.activated_by,
            forced=row.forced,
        )
        for row in connection.execute(_MODELS)
    ]


_CANDIDATE = text(
    f"""
    SELECT
        models.id,
        coalesce(models.last_served_at > clock_timestamp() - interval '{LIVE_S} seconds', false) AS served,
        models.last_served_at,
        EXISTS (
            SELECT FROM analyses WHERE analyses.model_id = models.id AND analyses.state = 'succeeded'
        ) AS evaluated
    FROM models
    WHERE models.name = :name AND models.version = :version
    """
)
_ACTIVATE = text(
    "INSERT INTO model_activations (model_id, activated_by, forced) VALUES (:model, :activated_by, :forced)"
)


def activate(connection: Connection, model: str, *, activated_by: str, force: bool) -> Activation:
    """Make ``name@version`` the active model. ``force`` skips the checks of a known model.

    Raises :class:`ModelUnknown` if no worker has served the model, and :class:`ActivationRefused` if no worker serves
    it now or it has no result in the store.
    """
    name, _, version = model.partition("@")
    lock_active(connection)
    found = connection.execute(_CANDIDATE, {"name": name, "version": version}).one_or_none()
    if found is None:
        known = ", ".join(each.model for each in models(connection)) or "none"
        raise ModelUnknown(f"no worker has served {model!r}; the store knows these models: {known}")
    objections = []
    if not found.served:
        objections.append(f"no worker serves it ({_last_served(found.last_served_at)})")
    if not found.evaluated:
        objections.append("it has no result in the store")
    if objections and not force:
        raise ActivationRefused(
            f"{model} is not activated: {' and '.join(objections)}; remove the cause, or use --force"
        )
    before = active_model(connection)
    connection.execute(_MAKE_ACTIVE, {"model": found.id})
    connection.execute(
        _ACTIVATE, {"model": found.id, "activated_by": activated_by, "forced": bool(objections) and force}
    )
    return Activation(model, None if before is None else before.model, tuple(objections))


def _last_served(at: datetime | None) -> str:
    return "none has reported it" if at is None else f"the last report is of {at:%Y-%m-%dT%H:%M:%SZ}"


def lock_active(connection: Connection) -> None:
    """Wait for other changes of the active model and of the shadow model, until the transaction ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
