"""Moves outcomes from the stream of the broker into the outbox, and notices a gap."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

from tussis.shared.errors import OutcomesGap
from tussis.shared.outcome_group import OutcomeGroup, Place
from tussis.shared.outcome_reader import Entry
from tussis.worker import logs
from tussis.worker.notify.webhook import Webhook, webhook_of_batch, webhook_of_document

_log = logs.get("notify")

#: Fields of the state: the entry up to which the outcomes are in the outbox, and spans to fill from the database.
POSITION, GAP, REPLAY = "position", "gap", "replay"
#: Prefix of fields with spans that an operator wants to be replayed. The notifier moves them to ``REPLAY``.
WANTED = "wanted:"
#: Seconds before the first and after the last outcome of a gap: a job ends in the database before it is told, and the
#: clocks of broker and database differ.
_BEFORE_S, _AFTER_S = 300.0, 60.0

#: Puts webhooks into the outbox, with changes of its state, in one step.
Accept: TypeAlias = Callable[[Sequence[Webhook], Mapping[str, str]], None]


@dataclass(frozen=True)
class ReplaySpan:
    """Outcomes to deliver from the database: of the jobs that ended between two times, seconds since the epoch."""

    since: float
    until: float
    lost: int = 0
    """For a gap, the number of outcomes that the broker no longer keeps."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def and_also(self, other: ReplaySpan) -> ReplaySpan:
        """One span that covers both."""
        return ReplaySpan(min(self.since, other.since), max(self.until, other.until), self.lost + other.lost)


def parse_span(text: str | None) -> ReplaySpan | None:
    """Read what :meth:`ReplaySpan.to_json` wrote; None for None."""
    return None if not text else ReplaySpan(**json.loads(text))


class Intake:
    """The outcomes of one group of readers. ``hold_gaps``: :meth:`read` stops at a gap until it is filled.

    The place of the last outcome that is in the outbox is stored with it, in one step. So each outcome enters the
    outbox once, and a gap is noticed also if the process was killed right after it read past the gap.
    """

    def __init__(self, group: OutcomeGroup, accept: Accept, state: Mapping[str, str], *, hold_gaps: bool) -> None:
        self._group = group
        self._accept = accept
        self._hold_gaps = hold_gaps
        position = state.get(POSITION)
        self._position = None if position is None else Place.of(position)
        self._held: Entry | None = None
        self.gap = parse_span(state.get(GAP))
        """Outcomes that the broker no longer keeps and that were not delivered."""

    def read(self) -> None:
        """Move the next outcome into the outbox, or wait for one for a moment."""
        try:
            entry = self._held or self._group.next_entry()
        except OutcomesGap:
            return  # the place of the next outcome tells how many are missing
        if entry is None:
            return
        self._held = entry  # until it is in the outbox: a full broker refuses it
        place, before = Place.of(entry.entry_id), self._position
        if before is not None and place.count <= before.count and place.ms <= before.ms:
            self._held = None
            return  # it is in the outbox
        if before is not None and place.count > before.count + 1:
            self._note_gap(before, place)
            if self._hold_gaps:
                return
        told_at = place.ms / 1000
        if entry.batch:
            webhook = webhook_of_batch(entry.batch.decode("utf-8", "replace"), told_at)
        else:
            webhook = webhook_of_document(entry.text.decode("utf-8", "replace"), told_at)
        self._accept([webhook], {POSITION: entry.entry_id})
        self._position, self._held = place, None

    def close(self) -> None:
        """Acknowledge the last outcome, if it is in the outbox."""
        if self._held is None:
            self._group.acknowledge()

    def _note_gap(self, before: Place, after: Place) -> None:
        lost = after.count - before.count - 1
        found = ReplaySpan(before.ms / 1000 - _BEFORE_S, after.ms / 1000 + _AFTER_S, lost)
        gap = found if self.gap is None else self.gap.and_also(found)
        position = Place(after.ms, after.count - 1)
        self._accept([], {GAP: gap.to_json(), POSITION: f"{position.ms}-{position.count}"})
        self.gap, self._position = gap, position
        log_gap(ReplaySpan(found.since, found.until, lost), filled=self._hold_gaps)


def log_gap(gap: ReplaySpan, *, filled: bool) -> None:
    """Log a gap. ``filled``: the database is known, so that the gap is filled from it."""
    action = "they are delivered from the database" if filled else "set TUSSIS_DATABASE_URL and start again to fill it"
    _log.warning("outcomes_gap", lost=gap.lost, since=gap.since, until=gap.until, reason=action)
