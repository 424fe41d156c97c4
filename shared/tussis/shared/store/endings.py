"""The ends of an attempt: result, failure or release. Each is one transaction that requires the attempt's token."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, select

from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store import transitions
from tussis.shared.store.hot_sql import COMPLETE
from tussis.shared.store.one_statement import array_of, run_statement, whole, whole_array_of
from tussis.shared.store.records import Claimed, Result
from tussis.shared.store.software import NAMES, Software, software_id_of
from tussis.shared.store.tables.analyses import analyses


def complete(engine: Engine, claimed: Claimed, result: Result) -> bool:
    """Store all scores, state and outcome in one statement. False: the claim is not held and nothing was stored."""
    return run_statement(engine, COMPLETE, _parameters(claimed, result)) is not None


def not_completed(connection: Connection, claimed: Claimed) -> bool:
    """Whether :func:`complete` returned False because this attempt had already completed the analysis."""
    return _already_or_superseded(connection, claimed, AnalysisState.SUCCEEDED)


def fail(
    connection: Connection,
    claimed: Claimed,
    error_class: str,
    message: str,
    timings_ms: Mapping[str, float] | None,
    software: Software | None,
) -> bool:
    """Store the failure and its reason. False: the claim is not held."""
    if transitions.to_failed(
        connection,
        claimed.analysis_id,
        error_class=error_class,
        message=message,
        token=claimed.token,
        timings_ms=timings_ms,
        software_id=None if software is None else software_id_of(connection, software),
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


def _parameters(claimed: Claimed, result: Result) -> dict[str, Any]:
    scores = result.segments
    return {
        "analysis_id": whole(claimed.analysis_id),
        "token": claimed.token,
        "size_bytes": whole(result.size_bytes),
        "duration_s": float(result.duration_s),
        "rate_hz": whole(result.rate_hz),
        "channels": whole(result.channels),
        "codec": transitions.storable(result.codec),
        "container": transitions.storable(result.container),
        "decoder": transitions.storable(result.decoder),
        "bag_probability": float(result.bag_probability),
        "bag_logit": float(result.bag_logit),
        "decision": bool(result.decision),
        "threshold": float(result.threshold),
        "segments": whole(len(scores)),
        "segments_total": whole(result.segments_total),
        "analyzed_s": float(result.analyzed_s),
        "truncated": result.truncated,
        "timings_ms": json.dumps(dict(result.timings_ms)),
        "events": whole(len(result.events)),
        "cough_seconds": math.fsum(event.end_s - event.start_s for event in result.events),
        "peak_dbfs": result.peak_dbfs,
        "rms_dbfs": result.rms_dbfs,
        "clipped_share": float(result.clipped_share),
        "dc_offset": float(result.dc_offset),
        "warnings": list(result.warnings),
        "bag_start_s": array_of(result.bags.start_s),
        "bag_end_s": array_of(result.bags.end_s),
        "bag_probabilities": array_of(result.bags.probability),
        "bag_logits": array_of(result.bags.logit),
        "bag_segments": whole_array_of(result.bags.segments),
        "event_start_s": array_of(event.start_s for event in result.events),
        "event_end_s": array_of(event.end_s for event in result.events),
        "event_peak": array_of(event.peak for event in result.events),
        "event_mean": array_of(event.mean for event in result.events),
        "event_bins": whole_array_of(event.bins for event in result.events),
        "start_s": array_of(scores.start_s),
        "end_s": array_of(scores.end_s),
        "probability": array_of(scores.probability),
        "logit": array_of(scores.logit),
        **{name: getattr(result.software, name, None) for name in NAMES},
    }
