"""The ends of an attempt: result, failure or release. Each is one transaction that requires the attempt's token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, func, insert, select, true, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Double

from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store import transitions
from tussis.shared.store.compiled_statement import CompiledStatement, array_of, given
from tussis.shared.store.records import Claimed, Result
from tussis.shared.store.schema import analyses, attempts, bags, recordings, segments


def complete(engine: Engine, claimed: Claimed, result: Result) -> bool:
    """Store bag, segments, state and outcome in one statement. False: the claim is not held and nothing was stored."""
    return _COMPLETE.run(engine, _parameters(claimed, result)) is not None


def not_completed(connection: Connection, claimed: Claimed) -> bool:
    """Whether :func:`complete` returned False because this attempt had already completed the analysis."""
    return _already_or_superseded(connection, claimed, AnalysisState.SUCCEEDED)


def fail(
    connection: Connection, claimed: Claimed, error_class: str, message: str, timings_ms: Mapping[str, float] | None
) -> bool:
    """Store the failure and its reason. False: the claim is not held."""
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
    """Release the claim. ``outcome`` is TRANSIENT or HANDED_BACK; any other one raises ValueError."""
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
    """Find out why no row changed.

    True: this attempt had already brought the analysis to ``state``, and the reply to its commit was lost. False:
    another attempt has taken over, and this attempt is marked as superseded.
    """
    row = connection.execute(
        select(analyses.c.state, analyses.c.attempt_token).where(analyses.c.id == claimed.analysis_id)
    ).one_or_none()
    if row is not None and row.attempt_token == claimed.token and row.state == state.value:
        return True
    transitions.attempt_superseded(connection, claimed.token)
    return False


def _complete() -> CompiledStatement:
    """Build the statement of :func:`complete`. It writes only if the claim is still held.

    It locks the recording before the analysis, in the same order as a claim. The update of the analysis reads the row
    from the update of the recording, and the other clauses read the row from the update of the analysis. If another
    claim takes over at the same time, the statement waits for the transaction of that claim. It then reads the row of
    the analysis again, finds another token and writes no result.
    """
    described = (
        update(recordings)
        .where(
            recordings.c.id == analyses.c.recording_id,
            analyses.c.id == bindparam("analysis"),
            analyses.c.attempt_token == bindparam("held"),
        )
        .values(
            {name: given(f"recording_{name}", recordings.c[name].type) for name in _RECORDING}
            | {"updated_at": transitions.NOW}
        )
        .returning(recordings.c.id)
        .cte("described")
    )
    answered = (
        transitions.TO_SUCCEEDED.where(analyses.c.recording_id == described.c.id)
        .values({name: given(f"answer_{name}", analyses.c[name].type) for name in _ANSWER})
        .returning(analyses.c.id, analyses.c.created_at)
        .cte("answered")
    )
    bag = (
        insert(bags)
        .from_select(
            ["analysis_id", *_BAG], select(answered.c.id, *(given(f"bag_{name}", bags.c[name].type) for name in _BAG))
        )
        .cte("bag")
    )
    # All segments are one insert with four array parameters of any length.
    rows = (
        func.unnest(*(given(name, ARRAY(Double)) for name in _SCORES))
        .table_valued(*_SCORES, with_ordinality="number", name="scores")
        .render_derived()
    )
    scored = (
        insert(segments)
        .from_select(
            ["analysis_id", "bag_index", "segment_index", "analysis_created_at", *_SCORES],
            select(
                answered.c.id,
                given("bag_bag_index", bags.c.bag_index.type),
                rows.c.number - 1,
                answered.c.created_at,
                *(rows.c[name] for name in _SCORES),
            ).select_from(answered.join(rows, true())),
        )
        .cte("scored")
    )
    ended = (
        transitions.ATTEMPT_ENDED.where(attempts.c.analysis_id == answered.c.id)
        .values(outcome=AttemptOutcome.SUCCEEDED.value)
        .cte("ended")
    )
    return CompiledStatement(select(answered.c.id).add_cte(bag, scored, ended))


_RECORDING = ("size_bytes", "duration_s", "rate_hz", "channels", "codec", "container", "decoder")
_ANSWER = (
    "bag_probability",
    "bag_logit",
    "decision",
    "threshold",
    "segments",
    "segments_total",
    "analyzed_s",
    "truncated",
    "decoder",
    "timings_ms",
)
_BAG = ("bag_index", "start_s", "end_s", "probability", "logit", "segments")
_SCORES = ("start_s", "end_s", "probability", "logit")
_COMPLETE = _complete()


def _parameters(claimed: Claimed, result: Result) -> dict[str, Any]:
    scores = result.segments
    decoder = transitions.storable(result.decoder)
    bag_probability, bag_logit = float(result.bag_probability), float(result.bag_logit)
    return {
        "analysis": claimed.analysis_id,
        "held": claimed.token,
        "attempt": claimed.token,
        "recording_size_bytes": result.size_bytes,
        "recording_duration_s": float(result.duration_s),
        "recording_rate_hz": result.rate_hz,
        "recording_channels": result.channels,
        "recording_codec": transitions.storable(result.codec),
        "recording_container": transitions.storable(result.container),
        "recording_decoder": decoder,
        "answer_bag_probability": bag_probability,
        "answer_bag_logit": bag_logit,
        "answer_decision": bool(result.decision),
        "answer_threshold": float(result.threshold),
        "answer_segments": len(scores),
        "answer_segments_total": result.segments_total,
        "answer_analyzed_s": float(result.analyzed_s),
        "answer_truncated": result.truncated,
        "answer_decoder": decoder,
        "answer_timings_ms": json.dumps(dict(result.timings_ms)),
        "bag_bag_index": 0,
        "bag_start_s": float(scores.start_s[0]),
        "bag_end_s": float(result.analyzed_s),
        "bag_probability": bag_probability,
        "bag_logit": bag_logit,
        "bag_segments": len(scores),
        "start_s": array_of(scores.start_s),
        "end_s": array_of(scores.end_s),
        "probability": array_of(scores.probability),
        "logit": array_of(scores.logit),
    }
