"""Fixtures for every test."""

import torch

# Threads of several test processes on two cores wait for each other more than they work.
torch.set_num_threads(1)

# In the order in which they import each other: a plugin that was imported before is not rewritten for assertions.
pytest_plugins = [
    "tests.support.models",
    "tests.support.pack",
    "tests.support.ports",
    "tests.support.processes",
    "tests.support.servers",
    "tests.support.store",
    "tests.support.deployment",
]
