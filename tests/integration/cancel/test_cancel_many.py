"""The time to cancel many jobs."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.outcomes import a_job
from tests.support.store import rows
from tests.support.waiting import PATIENCE
from tussis.producer.cli import root
from tussis.shared.broker import connect
from tussis.shared.ledger import Ledger
from tussis.shared.store.records import ModelFacts

#: docs/operate.md has the time for 100,000. It grows with the number.
JOBS = 20_000


def test_20_000_jobs_are_cancelled_within_20_s(
    broker_url: str, store_url: str, model: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUSSIS_BROKER_URL", broker_url)
    monkeypatch.setenv("TUSSIS_DATABASE_URL", store_url)
    client: Any = connect(broker_url)
    ledger = Ledger(client)
    for first in range(0, JOBS, 250):
        ledger.open_many([a_job(key=f"2026/{first + one}.wav", etag=f"{first + one}") for one in range(250)])
    seconds = {}
    for words in ([], ["--yes"]):
        began = time.monotonic()
        told = CliRunner().invoke(root, ["cancel", "--prefix", "s3://clinic/2026/", *words], catch_exceptions=False)
        seconds[" ".join(words)] = round(time.monotonic() - began, 1)
        assert (told.exit_code, told.stdout) == (0, f"tussis.any\t{JOBS:,}\n")
    sys.stdout.write(f"{seconds}\n")

    depth = ledger.depth()
    assert (depth.open, depth.total_waiting) == (0, 0)
    assert rows(store_url, "SELECT state, count(*) FROM analyses GROUP BY 1") == [("cancelled", JOBS)]
    assert seconds["--yes"] < 20 * PATIENCE, seconds
    client.close()
