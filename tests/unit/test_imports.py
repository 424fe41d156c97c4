"""Importing the producer is cheap and brings in nothing of the worker's."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

#: What an upstream system must not have to install, or to wait for, beside its own code.
HEAVY = frozenset(
    {
        "alembic", "av", "boto3", "botocore", "celery", "kombu", "numpy", "onnx", "onnxruntime", "psycopg", "pydub",
        "rich", "scipy", "soundfile", "sqlalchemy", "torch", "torchaudio", "torchvision",
    }
)  # fmt: skip


def run(code: str) -> Any:
    """What a fresh interpreter prints as JSON."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a statement leaves imported."""
    names = run(f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))")
    return {name.partition(".")[0] for name in names}


def test_the_producer_brings_in_nothing_heavy() -> None:
    assert not modules_after("import tussis.producer") & HEAVY
    assert not modules_after("from tussis.producer import Producer") & HEAVY


def test_the_producer_does_not_reach_into_the_worker() -> None:
    names = run("import json, sys\nimport tussis.producer\nprint(json.dumps(sorted(sys.modules)))")
    assert not [name for name in names if name.startswith("tussis.worker")]
    assert "tussis.producer" in names


def test_the_root_command_imports_neither_a_worker_nor_pydantic_for_its_help() -> None:
    code = """
import json, sys
from click.testing import CliRunner
from tussis.producer.cli import main
"""
    assert not modules_after(code) & (HEAVY | {"pydantic", "redis"})


def test_a_worker_checks_its_deployment_before_it_imports_what_is_large() -> None:
    modules = ("tussis.worker.cli.worker", "tussis.worker.logs", "tussis.worker.parent.deployment")
    code = "\n".join(f"import {module}" for module in modules)
    assert not modules_after(code) & {"celery", "kombu", "numpy", "onnxruntime", "torch"}
