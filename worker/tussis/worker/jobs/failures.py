"""An analysis and its attempts as JSON: the reports of ``tussis failures --json`` and of the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tussis.shared.store.records import Analysis, Attempt


def as_object(analysis: Analysis) -> dict[str, Any]:
    """An analysis as JSON."""
    return {
        "analysis_id": analysis.id,
        "uri": analysis.uri,
        "state": analysis.state.value,
        "error": None
        if analysis.error_class is None
        else {"class": analysis.error_class, "message": analysis.error_message},
        "finished_at": None if analysis.finished_at is None else analysis.finished_at.isoformat(),
        "attempts": analysis.attempts,
        "model": analysis.model,
        "profile": analysis.profile,
        "etag": analysis.etag,
        "version_id": analysis.version_id,
        "job_id": analysis.job_id,
        "metadata": analysis.metadata,
    }


def as_attempt(attempt: Attempt) -> dict[str, Any]:
    """An attempt as JSON."""
    return {
        "number": attempt.number,
        "worker": attempt.worker,
        "started_at": attempt.started_at.isoformat(),
        "ended_at": None if attempt.ended_at is None else attempt.ended_at.isoformat(),
        "outcome": None if attempt.outcome is None else attempt.outcome.value,
        "error": None
        if attempt.error_class is None
        else {"class": attempt.error_class, "message": attempt.error_message},
    }
