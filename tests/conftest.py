"""Fixtures for every test."""

import signal
from pathlib import Path
from typing import Final

import hypothesis
import pytest
import structlog
import torch

_TESTS: Final = Path(__file__).parent
#: Folders whose tests run commands, workers, a whole deployment or a fresh installation, or make models. They run in
#: `make acceptance`.
_ACCEPTANCE: Final = (
    "acceptance",
    "migration",
    "integration/cancel",
    "integration/cli",
    "integration/deploy",
    "integration/detector",
    "integration/device",
    "integration/embedded",
    "integration/export",
    "integration/gateway",
    "integration/notify",
    "integration/parent",
    "integration/pipeline",
    "integration/status",
    "integration/sweep",
    "integration/worker",
    "unit/modelling",
)

# With more threads, several test processes on two cores wait for each other more than they work.
torch.set_num_threads(1)

# A shell that starts the tests in the background may ignore these signals; every process that they start inherits that.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# Structlog's default trace shows the values of all variables. With arrays and settings among them that takes seconds.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

# The duration of an example depends on the load of the machine. Tests of duration set their own deadline.
hypothesis.settings.register_profile("unhurried", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("unhurried")

# In import order: pytest does not rewrite the assertions of a plugin that was imported before.
pytest_plugins = [
    "tests.support.models",
    "tests.support.pack",
    "tests.support.ports",
    "tests.support.preloaded",
    "tests.support.processes",
    "tests.support.aws",
    "tests.support.receiver",
    "tests.support.servers",
    "tests.support.store",
    "tests.support.pooler",
    "tests.support.deployment",
    "tests.support.benching",
    "tests.support.gateway",
    "tests.support.tls",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folders = [_TESTS / name for name in _ACCEPTANCE]
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in folders):
            item.add_marker(pytest.mark.acceptance)
