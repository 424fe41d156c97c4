"""docker-compose.yml as the real parser reads it, and the instructions of the Dockerfiles."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT

COMPOSE = Path(sys.executable).with_name("docker-compose")
HADOLINT = Path(sys.executable).with_name("hadolint")
DOCKERFILES = (ROOT / "deploy" / "Dockerfile.cpu", ROOT / "deploy" / "Dockerfile.gpu")
PROFILES = ("gpu", "serve", "tools")


def compose(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run docker-compose in an environment without any of its variables."""
    return subprocess.run(
        [COMPOSE, "--file", ROOT / "docker-compose.yml", *arguments],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def make_env(folder: Path) -> Path:
    """Create a new ``.env`` in ``folder`` with deploy/make-env.sh."""
    file = folder / ".env"
    subprocess.run(["/bin/sh", ROOT / "deploy" / "make-env.sh", file], capture_output=True, check=True, timeout=30)
    return file


def services(env_file: Path) -> dict[str, Any]:
    """Return every service of every profile, by name, as the parser resolves it."""
    words = [word for profile in PROFILES for word in ("--profile", profile)]
    ended = compose("--env-file", env_file, *words, "config", "--format", "json")
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)["services"]
    return found


@cache
def instructions(dockerfile: Path) -> tuple[tuple[str, str], ...]:
    """Return the instructions of a Dockerfile as (name, rest), with continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.M)
    text = re.sub(r"\\\n\s*", " ", text)
    pairs = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return tuple((name, rest) for name, rest in pairs)


def stage(dockerfile: Path, target: str) -> list[tuple[str, str]]:
    """Return the instructions of a build stage. Those of the stages under it come first."""
    stages: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for instruction, rest in instructions(dockerfile):
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stages[name] = list(stages.get(base, []))
        elif name:
            stages[name].append((instruction, rest))
    return stages[target]


def last(dockerfile: Path, target: str, instruction: str) -> list[str]:
    """Return the words of the last instruction of this name in a stage. It must be in JSON form."""
    found = [rest for name, rest in stage(dockerfile, target) if name == instruction]
    words: list[str] = json.loads(found[-1][found[-1].index("[") :])
    return words
