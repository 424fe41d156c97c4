"""An audit as one JSON object. ``docs/audit.md`` documents the fields."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tussis.worker.audit.against import Against, ComparedProfile
from tussis.worker.audit.answers import Answered, VariantAnswer
from tussis.worker.audit.attribution import Attribution, Effect
from tussis.worker.audit.audit import AuditedRecording
from tussis.worker.audit.findings import Findings
from tussis.worker.audit.labelled import LabelledProfiles
from tussis.worker.audit.summary import AnswerShifts, ProfileSummary
from tussis.worker.modelling.comparison import Refusal


def as_object(findings: Findings) -> dict[str, Any]:
    """The whole report. Recordings are listed worst first."""
    audit = findings.audit
    document: dict[str, Any] = {
        "model": audit.plan.detector.manifest.label,
        "profile": audit.plan.own.name,
        "threshold": audit.threshold,
        "coverage": audit.plan.coverage.value,
        "attribute_above": audit.plan.attribute_above,
        "scored_variants": audit.scored_variants,
        "comparisons": [_summary(summary) for summary in findings.summaries],
        "limits_exceeded": list(findings.exceeded),
    }
    if findings.labelled is not None:
        document["labels"] = _labelled(findings.labelled)
    if findings.against is not None:
        document["against"] = _against(findings.against)
    document["recordings"] = [_recording(one, audit.threshold) for one in audit.worst_first()]
    document["failures"] = [{"uri": source, **_error(refusal)} for source, refusal in audit.failures]
    return document


def _summary(summary: ProfileSummary) -> dict[str, Any]:
    return {
        "profile": summary.profile,
        **_shifts(summary.shifts),
        "refused": dict(summary.refused),
        "image_mean": summary.image_mean,
        "image_worst": summary.image_worst,
        "image_largest": summary.image_largest,
        "segments": summary.segments,
        "own_segments": summary.own_segments,
        "attributed": summary.attributed,
        "factors": [asdict(factor) for factor in summary.factors],
        "interaction": summary.interaction,
    }


def _shifts(shifts: AnswerShifts) -> dict[str, Any]:
    return asdict(shifts) | {"flips": shifts.flips}


def _recording(one: AuditedRecording, threshold: float) -> dict[str, Any]:
    return {
        "uri": one.source,
        **_answer(one.own, threshold),
        "profiles": {name: _compared(one, name, threshold) for name in one.others},
        "causes": [{"name": cause.name.value, "value": cause.value, "text": cause.text} for cause in one.causes],
    }


def _compared(one: AuditedRecording, profile: str, threshold: float) -> dict[str, Any]:
    other: Answered = one.others[profile]
    if isinstance(other, Refusal):
        return _error(other)
    compared = _answer(other, threshold) | {
        "shift": one.shift(profile),
        "flips": one.flips(profile, threshold),
        "image_mean": other.distance.mean,
        "image_largest": other.distance.largest,
        "image_segments": other.distance.segments,
    }
    attribution = one.attributions.get(profile)
    return compared | ({} if attribution is None else {"attribution": _attribution(attribution, one)})


def _answer(answer: VariantAnswer, threshold: float) -> dict[str, Any]:
    return {
        "bag_probability": answer.probability,
        "decision": answer.probability > threshold,
        "segments": len(answer.segments),
    }


def _attribution(attribution: Attribution, one: AuditedRecording) -> dict[str, Any]:
    cause = attribution.cause(one.causes)
    return {
        "factors": {
            factor.value: asdict(effect) if isinstance(effect, Effect) else _error(effect)
            for factor, effect in attribution.effects.items()
        },
        "interaction": attribution.interaction,
        "main": None if attribution.main is None else attribution.main.value,
        "cause": None if cause is None else cause.name.value,
    }


def _error(refusal: Refusal) -> dict[str, Any]:
    return {"error": {"class": refusal.error_class, "message": refusal.message}}


def _against(against: Against) -> dict[str, Any]:
    best = against.best
    return {
        "file": against.file,
        "matched": against.matched,
        "compared": against.compared,
        "unmatched": list(against.unmatched),
        "unanswered": against.unanswered,
        "thresholds": list(against.thresholds),
        "inconsistent": against.inconsistent,
        "coverages_alike": against.alike,
        "best": None if best is None else {"profile": best.profile, "coverage": best.coverage.value},
        "reproduced": best is not None and best.reproduces,
        "candidates": [_candidate(candidate) for candidate in against.candidates],
        "changes": _shifts(against.changes),
    }


def _candidate(candidate: ComparedProfile) -> dict[str, Any]:
    return {
        "profile": candidate.profile,
        "coverage": candidate.coverage.value,
        **_shifts(candidate.shifts),
        "same": candidate.same,
        "segment_mean": candidate.segment_mean,
        "segment_largest": candidate.segment_largest,
        "counted": candidate.counted,
        "same_count": candidate.same_count,
    }


def _labelled(labelled: LabelledProfiles) -> dict[str, Any]:
    return asdict(labelled)
