"""What an upstream system gets from a base installation: the producer, light, and clear words about the rest."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = [
    *("torch", "torchaudio", "onnxruntime", "numpy", "sqlalchemy", "psycopg", "celery", "kombu"),
    *("pydantic", "pydantic_settings", "boto3", "botocore", "click", "tussis.worker"),
]
# Times are the best of so many, in seconds of the processor: the machine has other things to do.
TRIES = 7
# The budgets on a quiet machine: seconds of an import beyond that of redis, and of the help. The speed of the
# processors of test machines varies by a factor of two.
IMPORT_S, HELP_S = 0.1, 0.3


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a new environment with the wheel of this tree and nothing but its base dependencies."""
    folder = tmp_path_factory.mktemp("bare")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True, timeout=120
    )
    (wheel,) = folder.glob("tussis-*.whl")
    venv.create(folder / "venv", with_pip=False)
    binaries = folder / "venv" / "bin"
    subprocess.run(
        [*pip, "--python", binaries / "python", "install", "--constraint", ROOT / "constraints.txt", wheel],
        check=True,
        timeout=240,
    )
    return binaries


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run in an environment without settings, away from the source tree."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TUSSIS_", "AWS_", "PYTHON"))}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=Path(command[0]).parent, env=clean, check=False
    )


def seconds_to(bare: Path, statement: str) -> float:
    """What it takes a new interpreter to carry out a statement, without its own start."""
    timed = f"import time; began = time.process_time()\n{statement}\nprint(time.process_time() - began)"
    return min(float(run(bare / "python", "-c", timed).stdout) for _ in range(TRIES))


def test_importing_the_producer_is_light(bare: Path) -> None:
    loaded = run(
        bare / "python",
        "-c",
        f"import sys\nfrom tussis.producer import Producer, JobRequest, Enqueued\nProducer(head=False).close()\n"
        f"print([name for name in {HEAVY} if name in sys.modules], Producer.__name__)",
    )

    assert loaded.stdout == "[] Producer\n", loaded.stderr


def test_importing_the_producer_costs_at_most_three_times_its_budget(bare: Path) -> None:
    beyond = seconds_to(bare, "from tussis.producer import Producer") - seconds_to(bare, "import redis")

    assert beyond <= 3 * IMPORT_S


def test_help_lists_every_verb_within_three_times_its_budget(bare: Path) -> None:
    took = []
    for _ in range(TRIES):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = run(bare / "tussis", "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    assert shown.returncode == 0
    assert "  enqueue " in shown.stdout
    assert "  results " in shown.stdout
    assert "cannot be loaded" not in shown.stdout
    assert min(took) < 3 * HELP_S


@pytest.mark.parametrize(
    "verb",
    [
        "analyze",
        "broker",
        "cancel",
        "database",
        "demo",
        "enqueue",
        "evaluate",
        "export",
        "health",
        "job",
        "listen",
        "migrate",
        "models",
        "pause",
        "preprocess",
        "report",
        "results",
        "resume",
        "retain",
        "status",
        "up",
        "worker",
    ],
)
def test_every_verb_explains_itself_without_its_extra(bare: Path, verb: str) -> None:
    shown = run(bare / "tussis", verb, "--help")

    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(f"Usage: tussis {verb} ")


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["results"], "store"),
        (["report", "--batch"], "store"),
        (["export", "--format", "csv", "--out", "-"], "store"),
        (["analyze", "cough.wav"], "cpu"),
        (["evaluate", "--labels", "labels.csv"], "cpu"),
        (["worker", "cpu"], "cpu"),
        (["demo"], "cpu,models,embedded"),
        (["up"], "cpu,models,embedded"),
    ],
)
def test_a_verb_without_its_extra_answers_with_the_pip_line(bare: Path, command: list[str], extra: str) -> None:
    answer = run(bare / "tussis", *command)

    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr.startswith("tussis: ")
    assert len(answer.stderr.splitlines()) == 1
    (wheel,) = bare.parents[1].glob("tussis-*.whl")
    assert f"pip install '{wheel}[{extra}]'" in answer.stderr


def test_the_producer_works_there(bare: Path) -> None:
    answer = run(bare / "tussis", "enqueue", "--no-head", "s3://clinic/a.wav", "--broker-url", "redis://127.0.0.1:1/0")

    assert answer.returncode == 1
    assert answer.stderr.startswith("tussis: the broker at redis://127.0.0.1:1/0 does not answer")


def test_the_listener_works_there(bare: Path) -> None:
    answer = run(bare / "tussis", "listen", "sqs", "--queue-url", "uploads", "--broker-url", "redis://127.0.0.1:1/0")

    assert answer.returncode == 1
    assert answer.stderr.startswith("tussis: TUSSIS_SQS_QUEUE_URL is not the URL of an SQS queue")


def test_the_version_is_the_wheels(bare: Path) -> None:
    assert run(bare / "tussis", "--version").stdout.startswith("tussis ")
