"""Runs a worker, from the first check to the exit status."""

from __future__ import annotations

import os
import socket
import sys
import uuid
import warnings
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.apps import worker as celery_worker
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging, worker_process_init, worker_ready, worker_shutting_down

from tussis.shared.cores import available_cores
from tussis.shared.errors import SettingsInvalid
from tussis.shared.queues import Device, ServedModel
from tussis.shared.s3 import models_s3
from tussis.shared.settings import Settings
from tussis.shared.store.records import ModelFacts
from tussis.worker import logs, standard_error
from tussis.worker.detector.manifest import read_manifest
from tussis.worker.detector.source import resolve_model
from tussis.worker.detector.tuning.graph_cache import Choice
from tussis.worker.detector.tuning.tuning_process import decide_in_own_process
from tussis.worker.device.arguments import DeviceArguments, OnDevice, Provider
from tussis.worker.device.host import DeviceHost
from tussis.worker.parent.app import build_app
from tussis.worker.parent.exposition import Exposition
from tussis.worker.parent.heartbeat import heartbeat_step
from tussis.worker.parent.housekeeper import Housekeeper
from tussis.worker.parent.leases import Leases
from tussis.worker.parent.paused import PAUSED
from tussis.worker.parent.pool import Pool
from tussis.worker.parent.request import ChildEnds
from tussis.worker.parent.server_checks import warn_of_servers
from tussis.worker.pipeline import child
from tussis.worker.pipeline.child import ChildSetup
from tussis.worker.status.metrics import FILES, NoMeter, prometheus_meter
from tussis.worker.status.rundir import Phase, RunDir, remove_leftovers

_log = logs.get("service")


def run_worker(settings: Settings, on: OnDevice | None = None) -> int:
    """Run the worker until it is told to stop. Returns the exit status.

    The model runs in the children, or with ``on`` in a device process. Call ``deployment.check_deployment`` first. The
    manifest is read before the fork, so that a wrong model is reported at once, in one line. Raises operator's and
    transient errors, and :class:`NotReady` when a child or the device process cannot load the model.
    """
    warn_of_servers(settings)
    device = Device.CPU if on is None else on.provider.device
    name = f"{device.value}@{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    run_dir = _new_run_dir(settings, name)
    try:
        model, facts = _find_model(settings)
        children = settings.concurrency
        cores = available_cores()
        metered = settings.metrics_port is not None
        meter = prometheus_meter(run_dir.path / FILES) if metered else NoMeter()
        threads = max(1, cores // children)
        choice = _choose(settings, model, threads) if on is None else None
        remote = on is not None
        serves = ServedModel(facts.name, facts.version)
        setup = ChildSetup(settings, device, name, model, threads, run_dir, meter, choice, remote, serves)
        exposition = Exposition(setup) if metered else None
        host = None if on is None else _device_host(setup, on, exposition)
        leases = Leases(settings, run_dir, facts)
        housekeeper = Housekeeper(setup, exposition, host, leases.hand_back, leases.active_model)
        try:
            if host is not None:
                # The device process loads while the children start. It is not one of them.
                host.start()
            return _serve(setup, housekeeper, leases, children)
        finally:
            housekeeper.close()
            leases.close()
            if host is not None:
                host.close()
            if exposition is not None:
                exposition.close()
            if housekeeper.problem is not None:
                raise housekeeper.problem
    finally:
        run_dir.remove()


def _new_run_dir(settings: Settings, worker: str) -> RunDir:
    try:
        settings.run_dir.mkdir(parents=True, exist_ok=True)
        remove_leftovers(settings.run_dir)
        run_dir = RunDir(settings.run_dir / f"tussis-{os.getpid()}-{uuid.uuid4().hex[:6]}")
        run_dir.create(worker)
        run_dir.beat(Phase.STARTING)
    except OSError as error:
        raise SettingsInvalid(
            f"cannot write in {settings.run_dir} ({error.strerror}): set TUSSIS_RUN_DIR to a writable folder"
        ) from error
    return run_dir


def _find_model(settings: Settings) -> tuple[Path, ModelFacts]:
    model = resolve_model(settings.need_model(), settings.model_cache_dir, lambda: models_s3(settings))
    return model, child.facts_of(read_manifest(model))


def _choose(settings: Settings, model: Path, threads: int) -> Choice | None:
    return decide_in_own_process(model, intra_op_threads=threads, cache_dir=settings.model_cache_dir)


def _device_host(setup: ChildSetup, on: OnDevice, exposition: Exposition | None) -> DeviceHost:
    settings = setup.settings
    arguments = DeviceArguments(
        model=str(setup.model),
        sha256=read_manifest(setup.model).sha256,
        provider=on.provider,
        device_index=on.index,
        # A run on a GPU hardly uses the CPU.
        threads=available_cores() if on.provider is Provider.CPU else 1,
        children=settings.concurrency,
        batch_segments=settings.batch_segments,
        batch_wait_ms=settings.batch_wait_ms,
        deadline_s=settings.inference_timeout_s,
        run_dir=str(setup.run_dir.path),
        cache_dir=str(settings.model_cache_dir),
        metered=exposition is not None,
        lifeline=-1,
        log_format=settings.log_format,
        log_level=settings.log_level,
    )
    return DeviceHost(arguments, setup.run_dir, over=lambda pid: None if exposition is None else exposition.fold(pid))


def _serve(setup: ChildSetup, housekeeper: Housekeeper, leases: Leases, children: int) -> int:
    PAUSED.await_first()
    app = build_app(setup.settings, setup.device, ChildEnds(leases.child_lost, leases.hand_back), setup.serves)
    # Without a default application, Celery makes one that reads a celeryconfig.py in the current folder.
    app.set_default()
    if setup.settings.log_format == "json":
        vars(celery_worker)["safe_say"] = standard_error.say

    class Gate(bootsteps.StartStopStep):  # type: ignore[misc]
        """A step between pool and consumer: no message is taken before every child is ready."""

        requires = ("celery.worker.components:Pool",)

        def start(self, worker: Any) -> None:
            leases.start(worker)
            housekeeper.start(worker)

    app.steps["worker"].add(Gate)
    app.steps["consumer"].add(heartbeat_step(setup.run_dir))

    def keep_our_logging(**_: Any) -> None:
        """Do nothing. Celery does not configure logging when this signal has a receiver."""

    def start_child(**_: Any) -> None:
        child.start(setup)

    def announce(sender: Any, **_: Any) -> None:
        housekeeper.announce(sender.controller)

    stopped_by: list[str] = []

    def note_stop(how: str, sig: str, **_: Any) -> None:
        stopped_by.append(f"{how} {sig}")

    worker_shutting_down.connect(note_stop, weak=False)
    worker_ready.connect(announce, weak=False)
    setup_logging.connect(keep_our_logging, weak=False)
    worker_process_init.connect(start_child, weak=False)

    # Celery warns root about pickled messages. The worker accepts only JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker = app.Worker(
        hostname=setup.worker,
        concurrency=children,
        pool=Pool,
        optimization="fair",
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,
        loglevel="WARNING",
        quiet=True,
    )
    worker.start()
    # Celery's exit code is 1 after Ctrl-C and 0 after SIGTERM. Both are the same orderly stop. A second Ctrl-C or a
    # SIGQUIT is not.
    status = 0 if stopped_by == ["Warm SIGINT"] else int(worker.exitcode or 0)
    _log.info("worker_stopped", worker=setup.worker, status=status)
    sys.stderr.flush()
    return status
