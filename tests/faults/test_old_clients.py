"""A client of the old backend waits for its answer while processes are killed."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import httpx
import pytest

from tests.soak.faulty_worker import STARTS_FILE, with_fault
from tests.support.deployment import Deployment
from tests.support.gateway import start_gateway
from tests.support.old_client import OldReply, post
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.shared.states import AnalysisState
from tussis.shared.store.records import Analysis

#: Seconds.
VISIBILITY_S = 5
SLOW = with_fault("slow-4", wav(1.0))


class Client:
    """A client that posts a recording in a thread of its own."""

    def __init__(self, url: str, data: bytes) -> None:
        self.reply: OldReply | None = None
        self.failed = False
        self._thread = threading.Thread(target=self._post, args=(url, data))
        self._thread.start()

    def _post(self, url: str, data: bytes) -> None:
        try:
            self.reply = post(url, data, timeout_s=300)
        except httpx.TransportError:
            self.failed = True

    def wait(self) -> OldReply | None:
        self._thread.join(300)
        assert not self._thread.is_alive()
        return self.reply


@pytest.fixture
def begun(deployment: Deployment, tmp_path: Path) -> Path:
    """A file that exists once a worker has begun a recording."""
    path = tmp_path / "starts"
    deployment.environment[STARTS_FILE] = str(path)
    return path


def _only(deployment: Deployment, job_id: str | None = None) -> Analysis:
    """The only analysis of the store: it succeeded, its object is the only upload, and its outcome was told once."""
    deployment.wait_drained(120)
    [analysis] = deployment.analyses()
    assert analysis.state is AnalysisState.SUCCEEDED
    assert job_id in (None, analysis.job_id)
    objects = deployment.bucket.client.list_objects_v2(Bucket=deployment.bucket.name)
    assert [f"s3://{deployment.bucket.name}/{found['Key']}" for found in objects["Contents"]] == [analysis.uri]
    assert deployment.sql("SELECT count(*) FROM jobs") == [(1,)]
    return analysis


@pytest.mark.scenario(46)
def test_a_killed_worker_delays_the_answer_of_an_old_client(deployment: Deployment, begun: Path) -> None:
    worker = deployment.worker(concurrency=1, faulty=True, visibility_timeout_s=VISIBILITY_S)
    _, url = start_gateway(deployment, serve_old_routes="open", serve_old_wait_s=240)
    client = Client(url, SLOW)
    wait_until(begun.exists, 60, "the recording to be begun")

    worker.signal(signal.SIGKILL, group=True)
    deployment.worker(concurrency=1, faulty=True, visibility_timeout_s=VISIBILITY_S)
    reply = client.wait()

    assert reply is not None
    assert reply.status == 200, reply.body
    analysis = _only(deployment, reply.body["job_id"])
    assert analysis.attempts == 2
    assert reply.body["file_probability"] == analysis.bag_probability


@pytest.mark.scenario(46)
def test_an_old_client_that_waited_in_vain_loses_nothing(deployment: Deployment, begun: Path) -> None:
    worker = deployment.worker(concurrency=1, faulty=True, visibility_timeout_s=VISIBILITY_S)
    _, url = start_gateway(deployment, serve_old_routes="open", serve_old_wait_s=8)
    client = Client(url, with_fault("once-60", wav(1.0)))
    wait_until(begun.exists, 60, "the recording to be begun")

    worker.signal(signal.SIGKILL, group=True)
    reply = client.wait()

    assert reply is not None
    assert reply.status == 503
    assert "Do not send it again" in (reply.shown_error or "")
    deployment.worker(concurrency=1, faulty=True, visibility_timeout_s=VISIBILITY_S)
    assert _only(deployment, reply.body["job_id"]).attempts == 2


@pytest.mark.scenario(46)
def test_the_job_goes_on_when_the_gateway_is_killed(deployment: Deployment, begun: Path) -> None:
    deployment.worker(concurrency=1, faulty=True)
    gateway, url = start_gateway(deployment, serve_old_routes="open", serve_old_wait_s=240)
    client = Client(url, SLOW)
    wait_until(begun.exists, 60, "the recording to be begun")

    gateway.signal(signal.SIGKILL, group=True)

    assert client.wait() is None
    assert client.failed
    assert _only(deployment).attempts == 1
