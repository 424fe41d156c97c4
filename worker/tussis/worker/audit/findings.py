"""Everything that an audit found: the input of its three outputs."""

from __future__ import annotations

from dataclasses import dataclass

from tussis.worker.audit.against import Against
from tussis.worker.audit.audit import Audit
from tussis.worker.audit.labelled import LabelledProfiles
from tussis.worker.audit.summary import Limits, ProfileSummary, summarise


@dataclass(frozen=True, slots=True)
class Findings:
    """An audit, its sums, and the comparisons with labels and with another system."""

    audit: Audit
    summaries: tuple[ProfileSummary, ...]
    labelled: LabelledProfiles | None
    against: Against | None
    exceeded: tuple[str, ...]
    """The limits that a comparison exceeds, as sentences."""

    @classmethod
    def of(cls, audit: Audit, limits: Limits, labelled: LabelledProfiles | None, against: Against | None) -> Findings:
        """Sum an audit up, and compare every comparison in it with the limits."""
        summaries = summarise(audit)
        exceeded = [line for one in summaries for line in limits.exceeded(f"profile {one.profile}", one.shifts)]
        if against is not None:
            exceeded += limits.exceeded("the other system", against.changes)
        return cls(audit, summaries, labelled, against, tuple(exceeded))
