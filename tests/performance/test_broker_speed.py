"""What 200,000 open jobs cost: their repair after the lists are lost, and `tussis status` beside them."""

from __future__ import annotations

import logging
import time
import uuid

import pytest

from tests.support.deployment import Deployment
from tests.support.waiting import PATIENCE
from tussis.shared.broker import connect
from tussis.shared.ledger import Ledger
from tussis.shared.ledger_repair import LedgerRepair
from tussis.shared.messages import Job
from tussis.shared.queues import list_key
from tussis.worker.parent.reconciler import INTERVAL_S, Reconciler

_log = logging.getLogger(__name__)
JOBS = 200_000
#: Seconds. The aims on a quiet machine of two cores.
REPAIR_S, STATUS_S = 120.0, 0.5
#: Seconds between two looks of a keeper while there is more to send.
_PAUSE_S = 0.5


@pytest.mark.performance
def test_lists_that_are_lost_with_200_000_jobs_are_repaired_in_2_minutes(deployment: Deployment) -> None:
    client = connect(deployment.environment["TUSSIS_BROKER_URL"])
    ledger = Ledger(client)
    for first in range(0, JOBS, 1000):
        ledger.open_many([_a_job(first + number) for number in range(1000)])
    # What the command itself takes, without Python's start and imports, which the empty queue has as well.
    began = time.monotonic()
    ledger.depth()
    depth_s = time.monotonic() - began
    client.delete(list_key("tussis.any", 5))
    leader = Reconciler(client, LedgerRepair(client), "one")

    leader.look()
    sent, looks, began = 0, 0, time.monotonic()
    while sent < JOBS:
        step = leader.look()
        assert step, f"stuck at {sent}"
        sent, looks = sent + step, looks + 1
    repair_s = INTERVAL_S + time.monotonic() - began + looks * _PAUSE_S

    _log.info("%d lost messages: repaired in %.0f s, %d looks; depth %.3f s", JOBS, repair_s, looks, depth_s)
    assert client.llen(list_key("tussis.any", 5)) == JOBS
    assert repair_s < REPAIR_S * PATIENCE
    assert depth_s < STATUS_S
    client.close()


def _a_job(number: int) -> Job:
    return Job(
        job_id=str(uuid.uuid4()),
        bucket="clinic",
        key=f"2026/11/recording-{number:07d}.wav",
        etag="9b2cf535f27731c974343645a3985328",
        enqueued_at=time.time(),
    )
