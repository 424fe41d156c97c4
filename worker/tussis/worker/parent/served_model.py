"""Reports to the store that this worker serves its model, and compares the model with the active one."""

from __future__ import annotations

from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store
from tussis.worker import logs
from tussis.worker.status.rundir import RunDir

_log = logs.get("served_model")

#: Seconds between two reports. A model counts as served for 60 s after a report.
REPORT_INTERVAL_S = 15.0


class ServedModelReport:
    """The reports of one worker. Every method raises the errors of the store."""

    def __init__(self, store: Store, facts: ModelFacts, run_dir: RunDir) -> None:
        self._store = store
        self._facts = facts
        self._run_dir = run_dir
        self._label = f"{facts.name}@{facts.version}"
        self.reported = False
        """Whether a report was made: not before a child has loaded the model."""
        self._active: str | None = self._label
        """The active model of the last log event."""

    def report(self) -> None:
        """Report the model once a child has loaded it. Log a change of the active model that concerns this worker."""
        if not any(child.state == "ready" for child in self._run_dir.children().values()):
            return
        found = self._store.report_served(self._facts)
        self.reported = True
        active = self._label if found is None else found.model
        if active == self._active:
            return
        self._active = active
        self._run_dir.note_active(None if active == self._label else f"serves {self._label}, active is {active}")
        if active == self._label:
            _log.info("model_active", model=self._label)
        else:
            _log.warning("model_not_active", model=self._label, active=active)

    def left(self) -> None:
        """Report that this worker ends."""
        if self.reported:
            self._store.report_left(self._facts)
