"""The scenarios of the fault tests, the table at the end, and the line with the total.

Every test of this folder is marked `faults_only`: it runs in `make faults`, not in `make test`.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest

_FOLDER: Final = Path(__file__).parent

SCENARIOS: Final = {
    1: "kill -9 of a child mid-task: run again within 10 s",
    2: "kill -9 of the whole worker mid-task: run again within the visibility timeout",
    3: "a task of three visibility timeouts on a healthy worker: one start",
    4: "an idle worker stopped, a message published, the worker killed",
    5: "kill -9 storm over 400 recordings",
    6: "kill -9 of the broker, worker idle: consuming within 15 s",
    7: "kill -9 of the broker, one of two slots busy",
    8: "the broker's connections dropped while busy",
    9: "half-open TCP to the broker: consuming within 20 s",
    10: "the broker wiped: a sweep brings everything back",
    11: "kill -9 of the broker right after publish",
    12: "PostgreSQL restarted before the commit; away for long",
    13: "kill -9 between commit and acknowledgement",
    14: "an input that crashes the process",
    15: "a process killed for memory",
    16: "a hung native call",
    17: "S3: 404, 503, slow, cut mid-body",
    18: "corrupt and unknown messages",
    19: "rolling SIGTERM under load; grace exceeded",
    20: "mixed priorities; the reported depth",
    21: "one question asked many times at once; a message taken from a living worker",
    22: "workers stopped in the middle of a recording, again and again",
    23: "a recording for which there is not enough memory",
    24: "the database refuses in passing; a pooler in transaction mode",
    25: "a failure that cannot be written either",
    26: "a full broker: producers refused, workers drain it",
    27: "failover of the broker behind one address",
    28: "S3 refuses one bucket or one recording for good",
    29: "environment variables of another Celery application",
    30: "clocks of broker and workers that are off or set back",
    31: "the worker stopped while a dead letter could not be written",
    32: "the database restored under living workers",
    33: "jobs that cannot be read, and a message with a good job's id",
    34: "a gateway changes or cuts a recording's bytes",
    35: "the connection to the device process disturbed",
    36: "hostile entries and remote control through the broker",
    37: "recordings that crashed the decoder: 8 channels, speakers in an order of their own",
    38: "a worker stopped or killed in the middle of a long recording",
    39: "workers of two models: killed while they route, the leader killed, the worker of a model killed",
    40: "upstream is told how each job ended, once, whatever was killed",
    41: "`tussis cancel` killed in the middle, and beside workers",
    42: "a batch counts each job once, and its end is told once, when processes are killed",
    43: "webhooks arrive when the notifier or the broker is killed",
    44: "uploads that S3 reports are enqueued once, when the listener or the broker is killed",
    45: "what the gateway answered is stored and enqueued once when it or the broker is killed, or S3 is away",
    46: "a client of the old backend waits while a worker or the gateway is killed",
    47: "a recording crashes its decoder process or hangs in it, and that process is killed",
    48: "`tussis forget` and workers killed: nothing of the person is left",
}

Results = defaultdict[int, list[tuple[str, float]]]
_RESULTS = pytest.StashKey[Results]()


class _Collector:
    """Collects results where pytest writes its report. With xdist that is another process than the test's."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            for name, value in report.user_properties:
                if name == "scenario":
                    self._results[int(str(value))].append((report.outcome, report.duration))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "scenario(number): one of the scenarios of docs/guarantees.md")
    results: Results = defaultdict(list)
    config.stash[_RESULTS] = results
    config.pluginmanager.register(_Collector(results))


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_FOLDER):
            item.add_marker(pytest.mark.faults_only)
        marker = item.get_closest_marker("scenario")
        if marker is not None:
            item.user_properties.append(("scenario", marker.args[0]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash[_RESULTS]
    if not results:
        return
    terminalreporter.section("scenarios")
    for number, title in SCENARIOS.items():
        runs = results.get(number, [])
        verdict = "not run" if not runs else "holds" if all(run[0] == "passed" for run in runs) else "BROKEN"
        seconds = sum(run[1] for run in runs)
        terminalreporter.write_line(f"{number:>3}  {verdict:<8} {seconds:>6.1f} s  {title}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Write the total as the last line, after pytest's own output."""
    results = config.stash.get(_RESULTS, None)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if results and reporter is not None:
        held = sum(all(run[0] == "passed" for run in runs) for runs in results.values())
        reporter.write_line(f"{held} of {len(SCENARIOS)} scenarios hold")
