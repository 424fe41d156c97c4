"""docker-compose.yml and the Dockerfiles: what the real parser and the linter say, and what no parser looks at."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.compose import (
    DOCKERFILES,
    HADOLINT,
    PROFILES,
    compose,
    instructions,
    last,
    make_env,
    services,
    stage,
)
from tests.support.processes import ROOT
from tussis.shared.settings import Settings
from tussis.worker.local.running_worker import HUGE_PAGES, TUNABLES
from tussis.worker.pipeline.process import JAIL_SLACK_S

LONG_RUNNING = {"broker", "database", "gateway", "listen-sqs", "s3", "worker-cpu", "worker-gpu"}
OURS = {"gateway", "listen-sqs", "migrate", "owner", "prepare", "producer", "tussis", "worker-cpu", "worker-gpu"}


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    """A fresh ``.env``."""
    return make_env(tmp_path)


@pytest.fixture
def resolved(env_file: Path) -> dict[str, Any]:
    """The services."""
    return services(env_file)


@pytest.mark.parametrize("profile", [None, *PROFILES])
def test_the_parser_accepts_every_profile(env_file: Path, profile: str | None) -> None:
    words = () if profile is None else ("--profile", profile)
    checked = compose("--env-file", env_file, *words, "config", "--quiet")
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_without_env_it_is_refused_in_words(tmp_path: Path) -> None:
    refused = compose("--project-directory", tmp_path, "config", "--quiet", cwd=tmp_path)
    assert refused.returncode != 0
    assert "run sh deploy/make-env.sh" in refused.stderr
    for name in ("BROKER_PASSWORD", "DATABASE_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"):
        assert name in refused.stderr


@pytest.mark.parametrize("missing", ["BROKER_PASSWORD", "DATABASE_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "MODEL"])
def test_no_secret_has_a_default(env_file: Path, missing: str) -> None:
    kept = [line for line in env_file.read_text().splitlines() if not line.startswith(f"{missing}=")]
    env_file.write_text("\n".join(kept))
    refused = compose("--env-file", env_file, "config", "--quiet")
    assert refused.returncode != 0
    assert f"variable {missing} is missing a value" in refused.stderr


def test_make_env_writes_other_passwords_each_time_and_overwrites_none(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    texts = [make_env(tmp_path / name).read_text() for name in ("a", "b")]
    secrets = [re.findall(r"^(\w+)=([0-9a-f]{20,})$", text, flags=re.M) for text in texts]
    assert [len(found) for found in secrets] == [11, 11]
    assert len({value for found in secrets for _, value in found}) == 22
    assert len(set(re.findall(r"^SERVE_TOKENS=default:[0-9a-f]{48}$", "\n".join(texts), flags=re.M))) == 2
    assert (tmp_path / "a" / ".env").stat().st_mode & 0o777 == 0o600
    again = subprocess.run(
        ["/bin/sh", ROOT / "deploy" / "make-env.sh", tmp_path / "a" / ".env"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert again.returncode == 1
    assert "stays as it is" in again.stderr
    assert (tmp_path / "a" / ".env").read_text() == texts[0]


def test_make_env_adds_what_an_older_file_lacks(env_file: Path) -> None:
    lines = env_file.read_text().splitlines()
    names = re.compile("(PRODUCER|WORKER|GATEWAY|NOTIFIER|MONITOR|READER|ANALYST)_PASSWORD=")
    older = "\n".join(line for line in lines if not names.match(line)) + "\n"
    env_file.write_text(older)
    added = subprocess.run(
        ["/bin/sh", ROOT / "deploy" / "make-env.sh", env_file], capture_output=True, text=True, timeout=30, check=True
    )
    assert added.stdout.count("_PASSWORD") == 7
    assert env_file.read_text().startswith(older)
    assert services(env_file)


def test_each_service_has_the_login_that_it_needs(resolved: dict[str, Any]) -> None:
    logins = {
        name: [
            None if (url := service["environment"].get(f"TUSSIS_{server}_URL")) is None else urlsplit(url).username
            for server in ("BROKER", "DATABASE")
        ]
        for name, service in resolved.items()
        if name in OURS
    }
    assert logins == {
        "gateway": ["gateway", "gateway"],
        "listen-sqs": ["producer", None],
        "migrate": ["", "tussis"],
        "owner": ["", "tussis"],
        "prepare": ["", "tussis"],
        "producer": ["producer", None],
        "tussis": ["worker", "worker"],
        "worker-cpu": ["worker", "worker"],
        "worker-gpu": ["worker", "worker"],
    }
    # No service has the password of another.
    for name in ("producer", "listen-sqs", "worker-cpu", "worker-gpu", "gateway", "tussis"):
        given = set(re.findall(r"[0-9a-f]{48}", json.dumps(resolved[name]["environment"]["TUSSIS_BROKER_URL"])))
        assert resolved["migrate"]["environment"]["TUSSIS_BROKER_URL"].split("@")[0].split(":")[-1] not in given


def test_the_broker_s_logins_are_those_of_the_documents() -> None:
    text = "".join((ROOT / "docs" / name).read_text("utf-8") for name in ("wire-format.md", "operate.md"))
    told = dict(re.findall(r"^ACL SETUSER (\w+) on >PASSWORD (.+)$", text, re.MULTILINE))
    acl = (ROOT / "deploy" / "users.acl").read_text("utf-8")
    ours = {name: rights for name, _, rights in re.findall(r"^user (\w+) on >(\w+)_PASSWORD (.+)$", acl, re.MULTILINE)}
    # Compose's producer may use batches.
    assert told.pop("producer")
    assert ours == {{"batches": "producer"}.get(name, name): rights for name, rights in told.items()}


def test_every_service_is_hardened_limited_and_pinned(resolved: dict[str, Any]) -> None:
    assert resolved.keys() == LONG_RUNNING | OURS
    for name, service in resolved.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory", "pids"} <= limits.keys(), name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        # Three numbers, or the two of a server whose makers count in two.
        assert re.search(r":\d+\.\d+(\.\d+)?(-\w+)?$", service["image"]), service["image"]
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
        if name not in OURS:
            assert service["user"] not in ("root", "0"), name
        if name in LONG_RUNNING:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"], name


def test_a_stop_gives_the_longest_task_its_time(resolved: dict[str, Any]) -> None:
    settings = Settings.model_fields
    stages = (
        settings["download_timeout_s"].default + 30,
        settings["decode_timeout_s"].default + JAIL_SLACK_S,  # decoding
        settings["decode_timeout_s"].default,  # preprocessing has the same deadline of its own
        settings["inference_timeout_s"].default,
    )
    for name in ("worker-cpu", "worker-gpu"):
        minutes = re.fullmatch(r"(\d+)m0s", resolved[name]["stop_grace_period"])
        assert minutes, resolved[name]["stop_grace_period"]
        assert int(minutes[1]) * 60 > sum(stages) == 465
        assert int(minutes[1]) * 60 > settings["soft_shutdown_s"].default + 5


def test_the_gpu_worker_reserves_a_device(resolved: dict[str, Any]) -> None:
    assert resolved["worker-gpu"]["profiles"] == ["gpu"]
    (device,) = resolved["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_containers_get_settings_that_exist(resolved: dict[str, Any]) -> None:
    known = {f"TUSSIS_{name.upper()}" for name in Settings.model_fields}
    for name in OURS:
        given = {key for key in resolved[name]["environment"] if key.startswith("TUSSIS_")}
        assert given <= known, name
    for dockerfile in DOCKERFILES:
        variables = " ".join(rest for one, rest in instructions(dockerfile) if one == "ENV")
        assert set(re.findall(r"TUSSIS_[A-Z_]+", variables)) <= known


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    checked = subprocess.run(
        [HADOLINT, "--no-color", dockerfile], capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_name_tried_versions_real_extras_and_no_root(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    pins = dict(re.findall(r"(build|hatchling)==([\d.]+)", text))
    constraints = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    assert pins == {name: constraints[name] for name in ("build", "hatchling")}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"whl\)\[(\w+)\]", text)) <= extras.keys()
    for base in re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", text, flags=re.M):
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    copies = [rest.split()[:-1] for one, rest in instructions(dockerfile) if one == "COPY" and "--from" not in rest]
    copied = {word for words in copies for word in words}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} <= set(ignored)
    assert all((ROOT / name).exists() for name in copied)
    targets = ("producer", "gateway", "worker") if dockerfile.name.endswith("cpu") else ("worker",)
    for target in targets:
        users = [rest for one, rest in stage(dockerfile, target) if one == "USER"]
        assert users[-1] == "10001:10001"


def test_the_gateway_is_off_unless_its_profile_is_named(resolved: dict[str, Any]) -> None:
    gateway = resolved["gateway"]
    assert gateway["profiles"] == ["serve"]
    assert last(DOCKERFILES[0], "gateway", "CMD") == gateway["command"] == ["serve"]
    assert gateway["environment"]["TUSSIS_SERVE_TOKENS"].startswith("default:")
    seconds = re.fullmatch(r"(\d+)s", gateway["stop_grace_period"])
    assert seconds
    assert int(seconds[1]) > Settings.model_fields["serve_stop_s"].default + 5


def test_images_and_compose_name_the_same_commands(resolved: dict[str, Any]) -> None:
    for service, dockerfile in (("worker-cpu", DOCKERFILES[0]), ("worker-gpu", DOCKERFILES[1])):
        assert last(dockerfile, "worker", "ENTRYPOINT") == ["tussis"]
        assert last(dockerfile, "worker", "CMD") == resolved[service]["command"]
        assert ["CMD", *last(dockerfile, "worker", "HEALTHCHECK")] == resolved[service]["healthcheck"]["test"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_images_of_workers_use_huge_pages_as_local_workers_do(dockerfile: Path) -> None:
    variables = [word for name, rest in stage(dockerfile, "worker") if name == "ENV" for word in rest.split()]
    assert f"{TUNABLES}={HUGE_PAGES}" in variables
