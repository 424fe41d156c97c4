"""How an attempt ends: the answer, a failure, a pause. Each is one transaction, conditional on the attempt's token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Double, Integer

from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store import transitions
from tussis.shared.store.records import Claimed, Result
from tussis.shared.store.schema import analyses, bags, recordings, segments


def complete(connection: Connection, claimed: Claimed, result: Result) -> bool:
    """Recording's facts, bag, all segments, state and attempt, or nothing of them."""
    # Recording before analysis: the order in which claims lock.
    _describe_recording(connection, claimed, result)
    if transitions.to_succeeded(connection, claimed.analysis_id, claimed.token, _answer(result)):
        _write_scores(connection, claimed, result)
        transitions.attempt_ended(connection, claimed.token, AttemptOutcome.SUCCEEDED)
        return True
    return _already_or_superseded(connection, claimed, AnalysisState.SUCCEEDED)


def fail(
    connection: Connection, claimed: Claimed, error_class: str, message: str, timings_ms: Mapping[str, float] | None
) -> bool:
    """The failure and its reason."""
    if transitions.to_failed(
        connection,
        claimed.analysis_id,
        error_class=error_class,
        message=message,
        token=claimed.token,
        timings_ms=timings_ms,
    ):
        transitions.attempt_ended(
            connection, claimed.token, AttemptOutcome.FAILED, error_class=error_class, message=message
        )
        return True
    return _already_or_superseded(connection, claimed, AnalysisState.FAILED)


def release(
    connection: Connection,
    claimed: Claimed,
    outcome: AttemptOutcome,
    error_class: str | None,
    message: str | None,
    timings_ms: Mapping[str, float] | None,
) -> bool:
    """The claim is given back; ``outcome`` is TRANSIENT or HANDED_BACK, ValueError otherwise."""
    if outcome not in (AttemptOutcome.TRANSIENT, AttemptOutcome.HANDED_BACK):
        raise ValueError(f"a claim is released as transient or handed_back, not {outcome}")
    if transitions.to_waiting(
        connection,
        claimed.analysis_id,
        claimed.token,
        error_class=error_class,
        message=message,
        timings_ms=timings_ms,
    ):
        transitions.attempt_ended(connection, claimed.token, outcome, error_class=error_class, message=message)
        return True
    return _already_or_superseded(connection, claimed, AnalysisState.WAITING)


def _already_or_superseded(connection: Connection, claimed: Claimed, state: AnalysisState) -> bool:
    """Nothing moved. True when this very attempt had brought the analysis to ``state`` before: the answer to its
    commit was lost. Otherwise another attempt has taken over, and this one is marked so."""
    row = connection.execute(
        select(analyses.c.state, analyses.c.attempt_token).where(analyses.c.id == claimed.analysis_id)
    ).one_or_none()
    if row is not None and row.attempt_token == claimed.token and row.state == state.value:
        return True
    transitions.attempt_superseded(connection, claimed.token)
    return False


_DESCRIBE_RECORDING = (
    update(recordings)
    .where(
        recordings.c.id == analyses.c.recording_id,
        analyses.c.id == bindparam("analysis"),
        analyses.c.attempt_token == bindparam("held"),
    )
    .values(updated_at=transitions.NOW)
)


def _describe_recording(connection: Connection, claimed: Claimed, result: Result) -> None:
    connection.execute(
        _DESCRIBE_RECORDING,
        {
            "analysis": claimed.analysis_id,
            "held": claimed.token,
            "size_bytes": result.size_bytes,
            "duration_s": float(result.duration_s),
            "rate_hz": result.rate_hz,
            "channels": result.channels,
            "codec": transitions.storable(result.codec),
            "container": transitions.storable(result.container),
            "decoder": transitions.storable(result.decoder),
        },
    )


def _answer(result: Result) -> dict[str, Any]:
    return {
        "bag_probability": float(result.bag_probability),
        "bag_logit": float(result.bag_logit),
        "decision": bool(result.decision),
        "threshold": float(result.threshold),
        "segments": len(result.segments),
        "segments_total": result.segments_total,
        "analyzed_s": float(result.analyzed_s),
        "truncated": result.truncated,
        "decoder": transitions.storable(result.decoder),
        "timings_ms": dict(result.timings_ms),
    }


_INSERT_BAG = insert(bags)
# One statement for all segments: the arrays travel as four parameters, whatever their length.
_ROWS = (
    func.unnest(
        bindparam("index", type_=ARRAY(Integer)),
        bindparam("start_s", type_=ARRAY(Double)),
        bindparam("end_s", type_=ARRAY(Double)),
        bindparam("probability", type_=ARRAY(Double)),
        bindparam("logit", type_=ARRAY(Double)),
    )
    .table_valued("index", "start_s", "end_s", "probability", "logit", name="scores")
    .render_derived()
)
_INSERT_SEGMENTS = insert(segments).from_select(
    [
        "analysis_id",
        "bag_index",
        "segment_index",
        "analysis_created_at",
        "start_s",
        "end_s",
        "probability",
        "logit",
    ],
    select(
        bindparam("analysis_id", type_=segments.c.analysis_id.type),
        bindparam("bag_index", type_=segments.c.bag_index.type),
        _ROWS.c.index,
        bindparam("created_at", type_=segments.c.analysis_created_at.type),
        _ROWS.c.start_s,
        _ROWS.c.end_s,
        _ROWS.c.probability,
        _ROWS.c.logit,
    ),
)


def _write_scores(connection: Connection, claimed: Claimed, result: Result) -> None:
    scores = result.segments
    connection.execute(
        _INSERT_BAG,
        {
            "analysis_id": claimed.analysis_id,
            "bag_index": 0,
            "start_s": float(scores.start_s[0]),
            "end_s": float(result.analyzed_s),
            "probability": float(result.bag_probability),
            "logit": float(result.bag_logit),
            "segments": len(scores),
        },
    )
    connection.execute(
        _INSERT_SEGMENTS,
        {
            "analysis_id": claimed.analysis_id,
            "bag_index": 0,
            "created_at": claimed.created_at,
            "index": list(range(len(scores))),
            "start_s": [float(value) for value in scores.start_s],
            "end_s": [float(value) for value in scores.end_s],
            "probability": [float(value) for value in scores.probability],
            "logit": [float(value) for value in scores.logit],
        },
    )
