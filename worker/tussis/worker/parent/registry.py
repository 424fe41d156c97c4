"""A worker's entry in the broker. `tussis status` reads from it which workers run, their model, and why they wait."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from tussis.shared.broker import broker_errors, server_time
from tussis.shared.broker_functions import function
from tussis.shared.errors import TransientError
from tussis.shared.queues import MODELS_KEY, PRIORITIES, WORKERS_KEY, Device, ServedModel, list_key, worker_queues
from tussis.worker import logs
from tussis.worker.parent.pool import child_pids
from tussis.worker.status.rundir import RunDir

_log = logs.get("registry")

#: Seconds between two updates of an entry. `tussis status` omits a worker whose entry is three times as old.
REPORT_INTERVAL_S = 5.0
#: Age in seconds at which the entry of a killed worker is removed, and seconds between two searches for such entries.
FORGET_AFTER_S = 3600.0
#: Seconds since its last report after which a model is forgotten, as if no worker had ever served it: 30 days.
FORGET_MODEL_AFTER_S = 2_592_000.0


class WorkerRegistry:
    """The entry of one worker. Every method but :meth:`sign_off` raises :class:`BrokerUnavailable` and
    :class:`BrokerRefused`."""

    def __init__(
        self,
        client: redis.Redis,
        where: str,
        worker: str,
        device: Device,
        model: str,
        serves: ServedModel | None = None,
    ) -> None:
        """``where`` names the broker in error messages. ``model`` is shown while no child has loaded the model."""
        self._client = client
        self._where = where
        self._worker = worker
        self._device = device
        self._model = model
        self._serves = serves
        self._report_script = function(client, "tussis_report")
        self._started_at = time.monotonic()

    def report(self, worker: Any, run_dir: RunDir) -> None:
        """Write the entry, and the time at which this worker serves its model."""
        reports = run_dir.children()
        living = child_pids(worker)
        ready = [reports[pid] for pid in living if pid in reports and reports[pid].state == "ready"]
        entry: dict[str, Any] = {
            "worker": self._worker,
            "device": self._device.value,
            "children": len(living),
            "ready": len(ready),
            "holding": sorted(set(run_dir.holds().values())),
            "model": ready[0].message if ready else self._model,
        }
        if lacks := run_dir.jail_lacks():
            entry["decoder_jail"] = lacks
        with broker_errors(self._where):
            # The broker's clock: the entry may be read on a machine with another clock.
            now = server_time(self._client)
            entry |= {"started_at": now - (time.monotonic() - self._started_at), "seen_at": now}
            texts = () if self._serves is None else self._serves.texts
            self._report_script(keys=[WORKERS_KEY, MODELS_KEY], args=[self._worker, json.dumps(entry), *texts])

    def waiting(self, taken: Callable[[Sequence[str]], Sequence[str]] = lambda queues: queues) -> int:
        """The number of messages that wait in the queues of this worker, or in those of them that ``taken`` returns."""
        with broker_errors(self._where):
            pipe = self._client.pipeline(transaction=False)
            for queue in taken(worker_queues(self._device, self._serves)):
                for priority in PRIORITIES:
                    pipe.llen(list_key(queue, priority))
            return sum(pipe.execute())

    def forget_silent_workers(self) -> None:
        """Remove the entries of killed workers, and of models that were served long ago.

        Killed workers did not sign off, and each start of a worker has a new name.
        """
        with broker_errors(self._where):
            now = server_time(self._client)
            models: Any = self._client.hgetall(MODELS_KEY)
            old = [model for model, seen_at in models.items() if now - float(seen_at) > FORGET_MODEL_AFTER_S]
            if old:
                self._client.hdel(MODELS_KEY, *old)
            entries = self._client.hgetall(WORKERS_KEY)
            silent = [name for name, text in entries.items() if now - json.loads(text)["seen_at"] > FORGET_AFTER_S]
            if silent:
                self._client.hdel(WORKERS_KEY, *silent)

    def sign_off(self) -> None:
        """Remove the entry. If the broker is not available, a running worker removes it later."""
        try:
            with broker_errors(self._where):
                self._client.hdel(WORKERS_KEY, self._worker)
        except TransientError as error:
            _log.warning("not_signed_off", reason=str(error))
