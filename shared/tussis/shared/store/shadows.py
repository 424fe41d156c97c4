"""The shadow model: it analyses a share of the new recordings after the active model, for comparison only.

Its analyses have ``shadow`` set. They are shown when another job requests the same analysis, and the results also when
the model becomes active. Its failures then stay hidden: an earlier model has answered these recordings.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from tussis.shared.errors import ModelUnknown, ShadowRefused
from tussis.shared.store.active_models import active_model, lock_active, models
from tussis.shared.store.records import Shadow, ShadowComparison
from tussis.shared.store.shadow_sql import POSITION

_SHADOW: Final = text(
    "SELECT models.name || '@' || models.version AS model, model_shadows.share, model_shadows.started_at, "
    "model_shadows.started_by FROM model_shadows JOIN models ON models.id = model_shadows.model_id "
    "WHERE model_shadows.stopped_at IS NULL"
)
_ID = "(SELECT models.id FROM models WHERE models.name || '@' || models.version = :model)"
_START: Final = text(f"INSERT INTO model_shadows (model_id, share, started_by) VALUES ({_ID}, :share, :started_by)")
#: At least the time of the start, also after the clock was set back.
_STOP: Final = text("UPDATE model_shadows SET stopped_at = greatest(now(), started_at) WHERE stopped_at IS NULL")
_STOP_MODEL: Final = text(f"{_STOP.text} AND model_id = {_ID}")
#: In the order of the ids, as claims lock two analyses.
_SHOW: Final = text(
    f"""
    UPDATE analyses SET shadow = false
    WHERE analyses.id IN (
        SELECT hidden.id
        FROM analyses AS hidden
        WHERE hidden.model_id = {_ID} AND hidden.shadow AND hidden.state = 'succeeded'
        ORDER BY hidden.id
        FOR UPDATE
    )
    """
)


def shadow(connection: Connection) -> Shadow | None:
    """The shadow model; None if there is none."""
    row = connection.execute(_SHADOW).one_or_none()
    return None if row is None else Shadow(row.model, row.share, row.started_at, row.started_by)


def start(connection: Connection, model: str, share: float, *, started_by: str) -> Shadow | None:
    """Make ``name@version`` the shadow model; returns the shadow model before, which is stopped.

    Raises :class:`ModelUnknown` if no worker has served the model. Raises :class:`ShadowRefused` if the model is
    active, if nobody has activated a model, or if no worker serves it now.
    """
    lock_active(connection)
    known = models(connection)
    found = next((each for each in known if each.model == model), None)
    if found is None:
        names = ", ".join(each.model for each in known) or "none"
        raise ModelUnknown(f"no worker has served {model!r}; the store knows these models: {names}")
    if found.active:
        raise ShadowRefused(f"{model} is the active model: the shadow model must be another one")
    active = active_model(connection)
    if active is None or not active.explicit:
        # A worker that starts could make the shadow model the active one.
        which = "NAME@VERSION" if active is None else active.model
        raise ShadowRefused(f"nobody has chosen the active model: run `tussis models activate {which}` first")
    if not found.served:
        raise ShadowRefused(f"no worker serves {model}: start one first, with its TUSSIS_MODEL")
    before = shadow(connection)
    connection.execute(_STOP)
    connection.execute(_START, {"model": model, "share": share, "started_by": started_by})
    return before


def stop(connection: Connection) -> Shadow | None:
    """Stop the shadow model; returns it. None: there was none. Its waiting jobs are still answered."""
    lock_active(connection)
    before = shadow(connection)
    connection.execute(_STOP)
    return before


def show_results(connection: Connection, model: str) -> None:
    """``name@version`` has become the active model: it is no shadow any more, and its results are shown."""
    connection.execute(_STOP_MODEL, {"model": model})
    connection.execute(_SHOW, {"model": model})


#: Recordings that were chosen: those that the active model answered since the start, and whose position is in the
#: share. The pairs are those that both models have answered.
_COMPARISON: Final = text(
    f"""
WITH shadow AS (
    SELECT
        model_shadows.model_id,
        model_shadows.share,
        model_shadows.started_at,
        model_shadows.stopped_at,
        models.name || '@' || models.version AS model
    FROM model_shadows
    JOIN models ON models.id = model_shadows.model_id
    ORDER BY model_shadows.id DESC
    LIMIT 1
),
pair AS (
    SELECT
        analyses.state,
        other.state AS other_state,
        analyses.decision,
        other.decision AS other_decision,
        abs(other.bag_probability - analyses.bag_probability) AS shift,
        extract(epoch FROM analyses.finished_at - analyses.started_at)::double precision AS seconds,
        extract(epoch FROM other.finished_at - other.started_at)::double precision AS other_seconds
    FROM shadow
    JOIN analyses
        ON analyses.created_at >= shadow.started_at
        AND analyses.created_at < coalesce(shadow.stopped_at, 'infinity')
    JOIN recordings ON recordings.id = analyses.recording_id
    LEFT JOIN analyses AS other
        ON other.recording_id = analyses.recording_id
        AND other.model_id = shadow.model_id
        AND NOT other.profile_overridden
        AND NOT other.coverage_overridden
        AND other.forced_by = ''
    WHERE analyses.model_id = (SELECT active_model.model_id FROM active_model)
        AND NOT analyses.shadow
        AND NOT analyses.profile_overridden
        AND NOT analyses.coverage_overridden
        AND analyses.forced_by = ''
        AND analyses.state IN ('succeeded', 'failed', 'discarded')
        AND {POSITION.format(bucket="recordings.bucket", key="recordings.key")} < shadow.share
),
matched AS (
    SELECT * FROM pair WHERE state = 'succeeded' AND other_state = 'succeeded'
)
SELECT
    shadow.model,
    (SELECT active_model.name || '@' || active_model.version FROM active_model) AS active,
    shadow.share,
    shadow.started_at,
    shadow.stopped_at,
    (SELECT count(*) FROM pair WHERE state = 'succeeded') AS chosen,
    (SELECT count(*) FROM pair WHERE state <> 'succeeded') AS active_failed,
    (SELECT count(*) FROM pair WHERE state = 'succeeded' AND other_state IN ('failed', 'discarded')) AS failed,
    (SELECT count(*) FROM matched) AS compared,
    (SELECT count(*) FROM matched WHERE other_decision AND NOT decision) AS to_cough,
    (SELECT count(*) FROM matched WHERE decision AND NOT other_decision) AS to_no_cough,
    measured.*
FROM shadow
CROSS JOIN (
    SELECT
        avg(matched.shift) AS mean_shift,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY matched.shift) AS p95_shift,
        max(matched.shift) AS max_shift,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY matched.seconds) AS active_median_s,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY matched.other_seconds) AS median_s
    FROM matched
) AS measured
"""
)


def comparison(connection: Connection) -> ShadowComparison | None:
    """The newest shadow model, stopped or not, against the active model; None if there never was one."""
    row = connection.execute(_COMPARISON).one_or_none()
    return None if row is None else ShadowComparison(**row._mapping)
