"""The environment file makes a second terminal ready for Tussis, boto3 and the AWS command line."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import TUSSIS
from tussis.worker.embedded.servers import Endpoints
from tussis.worker.local.environment_file import environment_file, source_command, write_environment

ENDPOINTS = Endpoints(
    database_url="postgresql://tussis:secret@127.0.0.1:1/tussis",
    broker_url="redis://:secret@127.0.0.1:2/0",
    s3_endpoint_url="http://127.0.0.1:3",
    s3_access_key="access",
    s3_secret_key="it's secret",
    s3_region="us-east-1",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder"
    folder.mkdir()
    return folder


def in_second_terminal(data: Path, command: str) -> str:
    """What ``command`` prints in a new shell after the file was sourced."""
    script = f"{source_command(data)} && {command}"
    bare = {"PATH": os.defpath}
    return subprocess.run(["/bin/sh", "-c", script], env=bare, capture_output=True, text=True, check=True).stdout


def test_tussis_is_found_where_the_first_terminal_had_it_in_its_path(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(TUSSIS.parent), prepend=os.pathsep)
    write_environment(data, ENDPOINTS, data / "cough.onnx", data / "run")

    assert in_second_terminal(data, "command -v tussis") == f"{TUSSIS}\n"


def test_the_store_has_its_address_and_keys(data: Path) -> None:
    write_environment(data, ENDPOINTS, data / "cough.onnx", data / "run")

    shown = in_second_terminal(data, "env").splitlines()

    assert {
        "AWS_ENDPOINT_URL_S3=http://127.0.0.1:3",
        "TUSSIS_S3_ENDPOINT_URL=http://127.0.0.1:3",
        "AWS_ACCESS_KEY_ID=access",
        "AWS_SECRET_ACCESS_KEY=it's secret",
        "AWS_DEFAULT_REGION=us-east-1",
        f"TUSSIS_MODEL={data}/cough.onnx",
        f"TUSSIS_RUN_DIR={data}/run",
    } <= set(shown)


def test_only_the_owner_can_read_the_passwords(data: Path) -> None:
    write_environment(data, ENDPOINTS, data / "cough.onnx", data / "run")

    assert stat.S_IMODE(environment_file(data).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("folder", "command"),
    [(".tussis/up", ". .tussis/up/environment"), (".", ". ./environment"), ("/a b", ". '/a b/environment'")],
)
def test_the_shell_finds_the_file(folder: str, command: str) -> None:
    assert source_command(Path(folder)) == command
