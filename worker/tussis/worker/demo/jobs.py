"""Enqueues the recordings as upstream does, and waits for their answers in the store."""

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
from tussis.worker.demo.recordings import DemoRecording
from tussis.worker.demo.upload import BUCKET
from tussis.worker.local.surroundings import last_error_line, tussis_command

_POLL_S: Final = 0.1
#: Seconds without an answer after which waiting fails. It is more than a worker allows for one recording.
_STALL_S: Final = 420.0
#: Open jobs to check in one round. Jobs end nearly in the order in which they were enqueued.
_LOOKED_AT: Final = 32


@dataclass(frozen=True)
class DemoJob:
    """A job. ``sent`` is False when the job was already open, from an earlier demo that was stopped."""

    uri: str
    job_id: str
    sent: bool


def enqueue(recordings: Sequence[DemoRecording], again: bool, servers: Mapping[str, str]) -> list[DemoJob]:
    """Enqueue the recordings with ``tussis enqueue``, as from a shell. ``servers`` are the settings of the command.

    Raises :class:`TussisError` with the command's message when it refuses a recording.
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
        start_new_session=True,  # only the demo handles Ctrl-C
        check=False,
    )
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    refused = [answer["error"]["message"] for answer in told if "error" in answer]
    if ended.returncode != 0 or refused:
        said = last_error_line(ended.stderr.decode(errors="replace").splitlines())
        raise TussisError(f"the recordings were not enqueued: {refused[0] if refused else said}")
    return [DemoJob(answer["uri"], answer["job_id"], answer["sent"]) for answer in told]


def follow(
    jobs: Sequence[DemoJob],
    ledger: Ledger,
    store: Store,
    check: Callable[[], None],
    answered: Callable[[JobAnswer], None],
) -> None:
    """Wait until every job has its answer. Each answer is passed to ``answered`` when it is found.

    ``check`` raises when no answer can come any more. Raises :class:`ServerFailed` when no job ends for ``_STALL_S``
    seconds, and the errors of the broker and the store.
    """
    pending = [job.job_id for job in jobs]
    moved = time.monotonic()
    while pending:
        still_open: list[str] = []
        for index, job_id in enumerate(pending):
            if len(still_open) == _LOOKED_AT:
                still_open += pending[index:]
                break
            # A job that is not in the ledger has its answer in the store: the job is closed after the commit.
            answer = store.job(job_id) if ledger.find(job_id) is None else None
            if answer is None:
                still_open.append(job_id)
            else:
                moved = time.monotonic()
                answered(answer)
        pending = still_open
        check()
        if time.monotonic() - moved > _STALL_S:
            raise ServerFailed(f"no job ended for {_STALL_S:g} s, and {len(pending)} are open: see the worker's log")
        if pending:
            time.sleep(_POLL_S)
