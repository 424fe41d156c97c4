"""Opens jobs as the broker has room for them: the bound ``max_depth`` of everything that enqueues."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tussis.shared.errors import InvalidJob, QueueFull
from tussis.shared.ledger import Ledger
from tussis.shared.messages import Job, check_batch
from tussis.shared.uris import shown

#: Seconds between two looks at a full queue, at random between the two, so that several producers take turns.
_LOOK_S = (0.05, 0.25)


@dataclass(frozen=True)
class Admission:
    """How jobs are opened. Raises :class:`InvalidJob` for a wrong value.

    ``batch``: the batch that they join. ``max_depth``: the most open jobs; None: no bound. The broker counts in the
    step that opens a job, so that several producers together do not exceed it. ``max_wait_s``: how long to wait for
    room for the next job; 0: not at all; None: without a limit.
    """

    batch: str | None = None
    max_depth: int | None = None
    max_wait_s: float | None = 0.0

    def __post_init__(self) -> None:
        check_batch(self.batch)
        if self.max_depth is not None and (type(self.max_depth) is not int or self.max_depth < 1):
            raise InvalidJob(f"max_depth must be a whole number, at least 1, not {shown(self.max_depth)}")
        if self.max_wait_s is not None and not self.max_wait_s >= 0:
            raise InvalidJob(f"max_wait_s must be seconds, at least 0, or None, not {shown(self.max_wait_s)}")


def admit(
    ledger: Ledger,
    jobs: Sequence[Job],
    admission: Admission,
    answers: Sequence[bool] | None = None,
    *,
    on_full: Callable[[int], None] = lambda depth: None,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[bool]:
    """Open the jobs in their order, and wait for room. Yields for each whether it was opened, as soon as it is known.

    ``answers`` are those of the first jobs, if :meth:`Ledger.open_many` was called with all jobs before. ``on_full`` is
    called with the number of open jobs while there is no room. Raises :class:`QueueFull`, and the errors of
    :meth:`Ledger.open_many`.
    """
    most = admission.max_depth
    if answers is None:
        answers = ledger.open_many(jobs, admission.batch, most)
    yield from answers
    done, since = len(answers), clock()
    while done < len(jobs):
        assert most is not None
        depth = ledger.open_jobs()
        fresh = ledger.open_many(jobs[done : done + most - depth], admission.batch, most) if depth < most else []
        if fresh:
            yield from fresh
            done, since = done + len(fresh), clock()
            continue
        on_full(depth)
        left_s = None if admission.max_wait_s is None else since + admission.max_wait_s - clock()
        if left_s is not None and left_s <= 0:
            raise QueueFull(
                f"{depth} jobs are open, and max_depth is {most}: {jobs[done].uri} was not enqueued after a wait of "
                f"{admission.max_wait_s:g} s; try again later, or start workers"
            )
        look_s = random.uniform(*_LOOK_S)
        pause(look_s if left_s is None else min(look_s, left_s))
