"""The time from a request of an old client until its answer, on an idle worker, beside that of the model."""

from __future__ import annotations

import http.client
import json
import statistics
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quantiles import quantile
from tussis.shared.errors import ServerFailed, TussisError
from tussis.worker.bench.environment import BUCKET, BenchEnvironment, bench_environment
from tussis.worker.bench.floor import cores
from tussis.worker.bench.material import workloads
from tussis.worker.bench.measurements import Cell, Column, Measurements, TargetCheck, hardware
from tussis.worker.bench.process_tree import cpu_s
from tussis.worker.embedded.ports import free_ports
from tussis.worker.local.running_program import RunningProgram
from tussis.worker.local.running_worker import RunningWorker
from tussis.worker.local.surroundings import tussis_command

#: Milliseconds from request to answer that the model does not take.
TARGET_MS = 60.0
#: Seconds between an answer and the next request: the worker is idle then.
_PAUSE_S = 0.1
_TIMEOUT_S = 120.0
_WARM_UP = 5


@dataclass(frozen=True)
class Asked:
    """One request. All numbers are milliseconds."""

    total: float
    upload: float
    """Until the job was made: the request is received, and the object is stored."""
    queue: float
    """From the job until the start of its attempt."""
    tell: float
    """From the stored answer until the client has it."""
    stages: Mapping[str, float]
    """The stages of the attempt in the worker."""

    @property
    def beside_model(self) -> float:
        return self.total - self.stages["inference"]

    @property
    def attempt(self) -> float:
        """The attempt without its stages."""
        return self.total - self.upload - self.queue - self.tell - sum(self.stages.values())


def measure(model: Path, *, requests: int, command: str) -> Measurements:
    """Post recordings of 2 s, one after the other, and take medians. Raises the errors of the servers."""
    (workload,) = workloads(["2s"], 4 * requests, None)
    data = [item.data for item in workload.items]
    with ExitStack() as stack:
        environment = stack.enter_context(bench_environment())
        worker = stack.enter_context(environment.worker(model, cores()))
        gateway = _gateway(environment)
        stack.callback(gateway.program.stop)
        for recording in data[:_WARM_UP]:
            gateway.ask(recording)
        before = cpu_s(gateway.program), cpu_s(worker)
        asked = [gateway.ask(data[number % len(data)]) for number in range(requests)]
        spent = [(after - start) / requests * 1000 for start, after in zip(before, _cpu(gateway, worker), strict=True)]
    beside = [one.beside_model for one in asked]
    return Measurements(
        title="Gateway, from the request of an old client to its answer",
        command=command,
        columns=(Column("part"), Column("median", "ms", 1), Column("90 %", "ms", 1)),
        rows=_rows(asked),
        hardware=hardware(),
        notes=(
            f"{requests} requests with a recording of 2 s (4 segments), one after the other, with a pause of"
            f" {_PAUSE_S * 1000:g} ms, to a worker with {cores()} children that serves {model.stem}.",
            f"CPU of each request: {spent[0]:.1f} ms in the gateway, {spent[1]:.1f} ms in the worker, its waiting"
            " included.",
        ),
        verdicts=(
            TargetCheck(
                "ms from request to answer beside the model", statistics.median(beside), TARGET_MS, at_most=True
            ),
            TargetCheck("ms of CPU of a request in the gateway", spent[0], TARGET_MS / 4, at_most=True),
        ),
    )


def _cpu(gateway: _Gateway, worker: RunningWorker) -> tuple[float, float]:
    return cpu_s(gateway.program), cpu_s(worker)


def _rows(asked: Sequence[Asked]) -> tuple[tuple[Cell, ...], ...]:
    parts: dict[str, list[float]] = {
        "request to answer": [one.total for one in asked],
        "of these beside the model": [one.beside_model for one in asked],
        "upload: until the job is made": [one.upload for one in asked],
        "queue: until its attempt starts": [one.queue for one in asked],
    }
    for stage in asked[0].stages:
        parts[f"attempt: {stage}"] = [one.stages[stage] for one in asked]
    parts["attempt: the rest"] = [one.attempt for one in asked]
    parts["tell: from the stored answer to the client"] = [one.tell for one in asked]
    return tuple((name, statistics.median(values), quantile(values, 0.9)) for name, values in parts.items())


@dataclass(frozen=True)
class _Gateway:
    program: RunningProgram
    port: int
    environment: BenchEnvironment

    def ask(self, data: bytes) -> Asked:
        """Post one recording. Raises :class:`TussisError` unless it is answered."""
        time.sleep(_PAUSE_S)
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        began = time.time()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT_S)
        connection.request(
            "POST", "/api/detect-cough", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        )
        answer = connection.getresponse()
        told: dict[str, Any] = json.loads(answer.read())
        ended = time.time()
        connection.close()
        if answer.status != 200:
            raise ServerFailed(f"the gateway answered {answer.status}, {told}; see {self.program.log}")
        found = self.environment.store.job(told["job_id"])
        if found is None or found.analysis.finished_at is None:
            raise TussisError(f"the store does not have the answer of {told['job_id']}")
        started, finished = found.analysis.started_at.timestamp(), found.analysis.finished_at.timestamp()
        enqueued = found.enqueued_at.timestamp()
        return Asked(
            total=(ended - began) * 1000,
            upload=(enqueued - began) * 1000,
            queue=(started - enqueued) * 1000,
            tell=(ended - finished) * 1000,
            stages=dict(found.analysis.timings_ms),
        )


def _gateway(environment: BenchEnvironment) -> _Gateway:
    (port,) = free_ports(1)
    program = RunningProgram(
        environment.servers,
        environment.data,
        "gateway",
        [tussis_command(), "serve"],
        environment={
            **environment.kept,
            "TUSSIS_SERVE_PORT": str(port),
            "TUSSIS_SERVE_WITHOUT_TOKENS": "true",
            "TUSSIS_UPLOAD_PREFIX": f"s3://{BUCKET}/uploads/",
        },
    )

    def healthy() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/healthz/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    try:
        program.wait(healthy)
    except BaseException:
        program.stop()
        raise
    return _Gateway(program, port, environment)
