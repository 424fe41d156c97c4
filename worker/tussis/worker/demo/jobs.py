"""Upstream's second half, and the wait: keys into the queue through the producer, answers out of the store."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tussis.shared.errors import ServerFailed, TussisError
from tussis.shared.ledger import Ledger
from tussis.shared.store.records import JobAnswer
from tussis.shared.store.repository import Store
from tussis.shared.uris import ObjectAddress
from tussis.worker.demo.recordings import Recording
from tussis.worker.demo.upload import BUCKET
from tussis.worker.local.surroundings import said_last, tussis_command

_POLL_S: Final = 0.1
#: Seconds without any job ending after which something is wrong: more than a worker allows one recording.
_STALL_S: Final = 420.0
#: Open jobs looked at in one round: they end nearly in the order in which they came.
_LOOKED_AT: Final = 32


@dataclass(frozen=True)
class Enqueued:
    """A job. ``sent`` is False when it was open already, left behind by a demo that was stopped."""

    uri: str
    job_id: str
    sent: bool


def enqueue(recordings: Sequence[Recording], again: bool, servers: Mapping[str, str]) -> list[Enqueued]:
    """Enqueue the recordings with ``tussis enqueue``, as upstream would from a shell; ``servers`` are its settings.

    Raises :class:`TussisError` with what it says when it refuses any.
    """
    lines = [
        json.dumps({"uri": ObjectAddress(BUCKET, recording.key).uri, "metadata": {"file": recording.path.name}})
        for recording in recordings
    ]
    ended = subprocess.run(
        [tussis_command(), "enqueue", "--json", *(["--again"] if again else []), "-"],
        input="\n".join(lines).encode("utf-8", errors="replace"),
        env={**os.environ, **servers},
        capture_output=True,
        start_new_session=True,  # Ctrl-C is for us to pass on
        check=False,
    )
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    refused = [answer["error"]["message"] for answer in told if "error" in answer]
    if ended.returncode != 0 or refused:
        said = said_last(ended.stderr.decode(errors="replace").splitlines())
        raise TussisError(f"the recordings were not enqueued: {refused[0] if refused else said}")
    return [Enqueued(answer["uri"], answer["job_id"], answer["sent"]) for answer in told]


def follow(
    jobs: Sequence[Enqueued],
    ledger: Ledger,
    store: Store,
    check: Callable[[], None],
    answered: Callable[[JobAnswer], None],
) -> None:
    """Wait until every job has its answer, ``answered`` being called with each as it comes.

    ``check`` raises when waiting has no sense any more. Raises :class:`ServerFailed` when nothing moves, and what the
    broker and the store raise.
    """
    pending = [job.job_id for job in jobs]
    moved = time.monotonic()
    while pending:
        still_open: list[str] = []
        for index, job_id in enumerate(pending):
            if len(still_open) == _LOOKED_AT:
                still_open += pending[index:]
                break
            # Out of the ledger means into the store: the job is closed after its answer's commit.
            answer = store.job(job_id) if ledger.find(job_id) is None else None
            if answer is None:
                still_open.append(job_id)
            else:
                moved = time.monotonic()
                answered(answer)
        pending = still_open
        check()
        if time.monotonic() - moved > _STALL_S:
            raise ServerFailed(f"no recording ended for {_STALL_S:g} s, {len(pending)} are open: see the worker's log")
        if pending:
            time.sleep(_POLL_S)
