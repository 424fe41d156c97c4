"""Fixtures for every test."""

import signal

import hypothesis
import torch

# Threads of several test processes on two cores wait for each other more than they work.
torch.set_num_threads(1)

# Whoever starts the tests in the background may ignore these for them, and then for every process that they start.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# How long an example takes says more about a busy machine than about the code; tests of time set their own deadline.
hypothesis.settings.register_profile("unhurried", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("unhurried")

# In the order in which they import each other: a plugin that was imported before is not rewritten for assertions.
pytest_plugins = [
    "tests.support.models",
    "tests.support.pack",
    "tests.support.ports",
    "tests.support.processes",
    "tests.support.servers",
    "tests.support.store",
    "tests.support.pooler",
    "tests.support.deployment",
    "tests.support.benching",
]
