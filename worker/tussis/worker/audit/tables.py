"""The tables of an audit, as cells of text. The terminal and the HTML page show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from tussis.shared.text import probability
from tussis.worker.audit.against import Against
from tussis.worker.audit.answers import VariantAnswer
from tussis.worker.audit.attribution import Attribution, Effect
from tussis.worker.audit.audit import Audit, AuditedRecording
from tussis.worker.audit.labelled import LabelledProfiles
from tussis.worker.audit.summary import ProfileSummary
from tussis.worker.audit.variants import Factor
from tussis.worker.evaluation.events import TOLERANCES_S
from tussis.worker.evaluation.measures import Interval

#: Keeps a cause on one line where a page has many columns.
_NO_BREAK: Final = "\u00a0"

Row: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """One table."""

    caption: str
    headings: Row
    rows: Sequence[Row]
    numbers: tuple[int, ...]
    """Columns that are aligned right."""


def profiles(summaries: Sequence[ProfileSummary]) -> Listing:
    """Each other profile, compared with the model's own."""
    headings = ("profile", "recordings", "mean shift", "p99", "largest", "flips", "images", "worst image", "refused")
    rows = [
        (
            one.profile,
            f"{one.shifts.recordings:,}",
            f"{one.shifts.mean:.4f}",
            f"{one.shifts.p99:.3f}",
            f"{one.shifts.largest:.3f}",
            flips(one),
            f"{one.image_mean:.4f}",
            f"{one.image_worst:.3f}",
            ", ".join(f"{count:,} {name}" for name, count in one.refused.most_common()) or "0",
        )
        for one in summaries
    ]
    return Listing("Profiles", headings, rows, tuple(range(1, 8)))


def flips(summary: ProfileSummary) -> str:
    """``3 (1.5 %)``."""
    shifts = summary.shifts
    return f"{shifts.flips:,} ({shifts.flips / shifts.recordings:.1%})" if shifts.recordings else "0"


def factors(summaries: Sequence[ProfileSummary]) -> Listing:
    """Each factor alone, over the recordings whose shift was attributed."""
    rows: list[Row] = []
    for one in summaries:
        for factor in one.factors:
            numbers = (f"{factor.mean:.4f}", f"{factor.largest:.3f}", f"{factor.flips:,}", f"{factor.image_mean:.4f}")
            rows.append((one.profile, factor.factor.value, f"{factor.recordings:,}", *numbers, f"{factor.main:,}"))
        if len(one.factors) > 1:
            rows.append((one.profile, "interaction", f"{one.attributed:,}", f"{one.interaction:.4f}", "", "", "", ""))
    headings = ("profile", "factor", "recordings", "mean shift", "largest", "flips alone", "images", "main factor in")
    return Listing("Factors", headings, rows, tuple(range(2, 8)))


def worst(audit: Audit, count: int, *, with_factors: bool) -> Listing:
    """The recordings with the largest shifts. Each is shown with the profile that shifts it most."""
    rows = [_worst_row(one, audit.threshold, with_factors) for one in audit.worst_first()[:count] if one.others]
    shown = [row for row in rows if row is not None]
    between = (*(factor.value for factor in Factor), "interaction") if with_factors else ()
    headings = ("own", "profile", "other", "shift", "flips", *between, "cause", "recording")
    return Listing("Worst recordings", headings, shown, (0, 2, 3, *range(5, 5 + len(between))))


def _worst_row(one: AuditedRecording, threshold: float, with_factors: bool) -> Row | None:
    shifts = {name: shift for name in one.others if (shift := one.shift(name)) is not None}
    if not shifts:
        return None
    name = max(shifts, key=lambda name: (one.flips(name, threshold), abs(shifts[name])))
    other = one.others[name]
    assert isinstance(other, VariantAnswer)
    attribution = one.attributions.get(name)
    return (
        probability(one.own.probability, threshold),
        name,
        probability(other.probability, threshold),
        f"{shifts[name]:+.3f}",
        "yes" if one.flips(name, threshold) else "",
        *(_effects(attribution) if with_factors else ()),
        cause(attribution, one) if not with_factors else cause(attribution, one).replace(" ", _NO_BREAK),
        one.source,
    )


def _effects(attribution: Attribution | None) -> Row:
    if attribution is None:
        return ("",) * (len(Factor) + 1)
    shifts = [
        f"{effect.shift:+.3f}" if isinstance(effect := attribution.effects.get(factor), Effect) else ""
        for factor in Factor
    ]
    return (*shifts, "" if attribution.interaction is None else f"{attribution.interaction:+.3f}")


def cause(attribution: Attribution | None, one: AuditedRecording) -> str:
    """The main factor and the measured fact that explains it: ``normalise: quiet, peak -31.2 dBFS``."""
    if attribution is None:
        return ""
    found = attribution.cause(one.causes)
    name = "several factors" if attribution.main is None else attribution.main.value
    return name + (f": {found.text}" if found is not None else "")


def labels(labelled: LabelledProfiles) -> Listing:
    """Each profile, compared with the labels."""
    rows = [
        (
            one.profile + (" *" if one.profile == labelled.best else ""),
            _interval(one.auroc, 3),
            _interval(one.lag, 3),
            _interval(one.accuracy, 3),
            *(_interval(interval, 3) for interval in one.event_f1 or ()),
            _interval(one.found, 3),
            _interval(one.false_events_per_hour, 1),
        )
        for one in labelled.profiles
    ]
    f1 = [f"event F1 at {tolerance:g} s" for tolerance in TOLERANCES_S] if _has_f1(labelled) else []
    headings = ("profile", "AUROC", "below the best", "accuracy", *f1, "coughs with an event", "false events an hour")
    return Listing("Labels", headings, rows, tuple(range(1, len(headings))))


def _has_f1(labelled: LabelledProfiles) -> bool:
    return any(one.event_f1 is not None for one in labelled.profiles)


def _interval(interval: Interval | None, digits: int) -> str:
    if interval is None:
        return ""
    return f"{interval.value:.{digits}f} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"


def candidates(against: Against) -> Listing:
    """Each profile and coverage, compared with the other system. The best first."""
    rows = [
        (
            one.profile,
            one.coverage.value,
            f"{one.shifts.mean:.5f}",
            f"{one.shifts.p99:.4f}",
            f"{one.shifts.largest:.4f}",
            f"{one.same:,} of {one.shifts.recordings:,}",
            f"{one.shifts.flips:,}",
            "" if one.segment_mean is None else f"{one.segment_mean:.5f}",
            f"{one.same_count:,} of {one.counted:,}",
        )
        for one in against.candidates
    ]
    headings = (
        "profile", "coverage", "mean difference", "p99", "largest", "same answer", "other decision",
        "segments, mean", "same number of segments",
    )  # fmt: skip
    return Listing("The other system", headings, rows, tuple(range(2, 9)))


def failures(audit: Audit) -> Listing:
    """Recordings without an answer under the model's own profile."""
    rows = [(refusal.error_class, refusal.message, source) for source, refusal in audit.failures]
    return Listing("Failures", ("error class", "message", "recording"), rows, ())
