"""Delivers outcomes from the database: of a gap, and on request of an operator."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from tussis.worker.notify.intake import Accept, ReplaySpan
from tussis.worker.notify.webhook import webhook_of

if TYPE_CHECKING:
    from tussis.shared.store.job_outcomes import JobEnd
    from tussis.shared.store.repository import Store

#: Outcomes that are read and stored in one step.
PAGE: Final = 100


class Refill:
    """Moves outcomes from the database into the outbox, the oldest first.

    ``which_open``: which of these jobs are open. Their outcomes follow when they end.
    """

    def __init__(self, store: Store, which_open: Callable[[Sequence[str]], Collection[str]], accept: Accept) -> None:
        self._store = store
        self._which_open = which_open
        self._accept = accept
        self._verified = False

    def step(self, field: str, span: ReplaySpan) -> ReplaySpan | None:
        """Move the next page of a span, and store what remains of it under ``field``, in one step.

        Returns what remains, or None. Raises the errors of the database and of the broker.
        """
        if not self._verified:
            self._store.verify_schema()
            self._verified = True
        ends, following = self._page(span.since)
        wanted = [end.outcome for end in ends if end.ended_at.timestamp() <= span.until]
        rest = None
        if following is not None and following <= span.until:
            rest = replace(span, since=following)
        opened = self._which_open([outcome.job_id for outcome in wanted]) if wanted else ()
        webhooks = [webhook_of(outcome.again()) for outcome in wanted if outcome.job_id not in opened]
        self._accept(webhooks, {field: "" if rest is None else rest.to_json()})
        return rest

    def _page(self, since: float) -> tuple[list[JobEnd], float | None]:
        """The first jobs that ended since then, and the time from which the next page begins; None: there is none.

        All jobs that ended at one time are on one page.
        """
        start = datetime.fromtimestamp(since, UTC)
        limit = PAGE + 1
        while True:
            ends = self._store.ended_since(start, limit)
            if len(ends) < limit:
                return ends, None
            last = ends[-1].ended_at
            if last > ends[0].ended_at:
                return [end for end in ends if end.ended_at < last], last.timestamp()
            limit *= 2
