"""What an audit found, in sentences. The terminal and the HTML page show the same ones."""

from __future__ import annotations

from tussis.worker.audit.against import SAME, Against, ComparedProfile
from tussis.worker.audit.audit import Audit
from tussis.worker.audit.findings import Findings
from tussis.worker.audit.labelled import LabelledProfiles
from tussis.worker.audit.summary import ProfileSummary


def subject(audit: Audit) -> str:
    """The model, its profile, and what was audited."""
    manifest, plan = audit.plan.detector.manifest, audit.plan
    return (
        f"{manifest.label}, profile {plan.own.name}, coverage {plan.coverage.value}, threshold {audit.threshold:g}: "
        f"{len(audit.recordings):,} recordings audited, {len(audit.failures):,} failed."
    )


def decisions(summary: ProfileSummary, own: str) -> str:
    """How many decisions a profile flips, and the factor that matters most."""
    shifts = summary.shifts
    if not shifts.recordings:
        return f"{summary.profile}: no recording has an answer."
    said = (
        f"{summary.profile}: {shifts.flips:,} of {shifts.recordings:,} decisions flip compared with {own} "
        f"({shifts.to_cough:,} to cough, {shifts.to_no_cough:,} to no cough)."
    )
    leading = max(summary.factors, key=lambda factor: factor.main, default=None)
    if leading is not None and leading.main:
        said += (
            f" Main factor in {leading.main:,} of {summary.attributed:,} shifted recordings: {leading.factor.value}."
        )
    return said


def attribution(audit: Audit) -> str:
    """Which recordings the table of factors is about."""
    return (
        "Single factors are scored for recordings whose answer shifts by more than "
        f"{audit.plan.attribute_above:g} or flips. The interaction is the shift of all factors together minus the "
        "shifts of each alone."
    )


def labels(labelled: LabelledProfiles) -> list[str]:
    """Which profile agrees best with the labels, and whether the recordings are enough to say so."""
    said = [
        f"{labelled.recordings:,} labelled recordings have an answer under every profile, {labelled.coughs:,} of them "
        f"with a cough. Left out: {labelled.left_out:,} without an answer, {labelled.unmatched:,} labels without a "
        "recording."
    ]
    if labelled.best is None:
        said.append("There is no AUROC: it needs recordings with a cough and recordings without.")
    elif len(labelled.profiles) > 1:
        said.append(
            f"The answers agree best with the labels under {labelled.best}."
            + (
                " Every other profile is worse with 95 % confidence."
                if labelled.is_clear
                else " The difference is within the uncertainty of these recordings: do not choose a profile by it."
            )
        )
    return said


def against(found: Against, audit: Audit) -> list[str]:
    """Which profile and coverage reproduce the other system best, and what to check."""
    said = [
        f"{found.file}: {found.matched:,} answers for recordings of this audit, {len(found.unmatched):,} for other "
        f"files, {found.unanswered:,} lines without a probability. Compared: the {found.compared:,} recordings that "
        "every profile answers."
    ]
    if found.best is not None:
        said.append(_best(found.best, found))
    if found.inconsistent:
        said.append(
            f"In {found.inconsistent:,} answers of the other system, coughDetected is not what its own probability and "
            "threshold_used give."
        )
    if found.thresholds and found.thresholds != (audit.threshold,):
        listed = ", ".join(f"{threshold:g}" for threshold in found.thresholds)
        said.append(f"The threshold of the other system is {listed}, that of the model is {audit.threshold:g}.")
    changes = found.changes
    if found.matched:
        said.append(
            f"If Tussis replaces the other system with this model and profile {audit.plan.own.name}, "
            f"{changes.flips:,} of {changes.recordings:,} decisions change ({changes.to_cough:,} to cough, "
            f"{changes.to_no_cough:,} to no cough). The largest shift is {changes.largest:.3f}."
        )
    return said


def _best(best: ComparedProfile, found: Against) -> str:
    name = f"{best.profile}" if found.alike else f"{best.profile} with coverage {best.coverage.value}"
    both = " Both coverages give the same answers for these recordings." if found.alike else ""
    if best.reproduces:
        return f"{name} reproduces the other system: every probability is the same within {SAME:g}.{both}"
    return (
        f"{name} is closest to the other system, but does not reproduce it: {best.same:,} of "
        f"{best.shifts.recordings:,} probabilities are the same within {SAME:g}, and the mean difference is "
        f"{best.shifts.mean:.4f}.{both}"
    )


def verdict(findings: Findings) -> str:
    """Whether the limits hold."""
    return "; ".join(findings.exceeded) if findings.exceeded else "No limit is exceeded."
