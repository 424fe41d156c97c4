"""What would be released: wheel and sdist are whole, and what is installed from them works without the source tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import psycopg
import pytest

from tests.support.models import write_tiny
from tests.support.processes import ROOT
from tests.support.sounds import wav

#: Seconds, on a busy machine.
BUILD_S = 240
RUN_S = 120
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this tree, and the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
        timeout=BUILD_S,
    )
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("tussis-*.whl")
    return found


def tracked(*folders: str) -> list[Path]:
    """The files under version control below these folders, where there is version control."""
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    return [file.relative_to(ROOT) for folder in folders for file in (ROOT / folder).rglob("*.py")]


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    packages = {
        str(file.relative_to(folder))
        for folder in ("producer", "worker", "shared")
        for file in tracked(f"{folder}/tussis")
    }
    migrations = {
        f"tussis/shared/store/{file}" for file in tracked("migrations") if file.suffix in (".py", ".mako", ".sql")
    }
    assert len(packages) > 100
    assert len(migrations) > 2
    assert packages | migrations <= names
    assert all(name.startswith("tussis/") for name in names)
    assert "tussis/__init__.py" not in names
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    text = archive.read(metadata).decode()
    assert "License-Expression: Apache-2.0" in text
    for extra in ("store", "export", "cpu", "gpu", "models", "embedded"):
        assert f"Provides-Extra: {extra}\n" in text
    assert [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]


def test_the_sdist_holds_the_sources_and_no_secrets(built: Path) -> None:
    (archive,) = built.glob("tussis-*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    wanted = {str(file) for file in tracked("producer", "worker", "shared", "migrations", "tests", "docs")}
    assert wanted <= names
    assert {"pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "constraints.txt"} <= names
    assert not [name for name in names if name == ".env" or name.startswith((".venv", ".tussis", ".git/"))]


def run(
    python: Path, paths: str, folder: Path, *words: str | Path, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run ``tussis`` of an installation, away from the source tree."""
    environment = {"PATH": os.defpath, "HOME": str(folder), **settings}
    if paths:
        environment["PYTHONPATH"] = paths
    script = "from tussis.producer.cli import main; main()"
    return subprocess.run(
        [python, "-c", script, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


def check_installation(python: Path, paths: str, home: Path, folder: Path, database_url: str) -> None:
    """Given an installation below ``home``, then help, an analysis and the migration come from there."""
    found = subprocess.run(
        [python, "-c", "import tussis.worker.parent.app, tussis.shared.ledger as l; print(l.__file__)"],
        cwd=folder,
        env={"PATH": os.defpath, "HOME": str(folder), **({"PYTHONPATH": paths} if paths else {})},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=True,
    )
    assert Path(found.stdout.strip()).is_relative_to(home)
    shown = run(python, paths, folder, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "  enqueue " in shown.stdout
    assert "cannot be loaded" not in shown.stdout

    (folder / "a.wav").write_bytes(wav(1.5))
    model = write_tiny(folder)
    answered = run(python, paths, folder, "analyze", "a.wav", "--json", "--model", model)
    assert answered.returncode == 0, answered.stderr
    answer = json.loads(answered.stdout)
    assert answer["model"] == "tiny@1"
    assert answer["duration_s"] == pytest.approx(1.5)

    migrated = run(python, paths, folder, "migrate", TUSSIS_DATABASE_URL=database_url)
    assert migrated.returncode == 0, migrated.stderr
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM analyses").fetchone() == (0,)


def test_the_wheel_works_without_the_source_tree(wheel: Path, tmp_path: Path, database_url: str) -> None:
    """The quick form: the wheel's files, with the libraries at hand."""
    home = tmp_path / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--target", home, wheel], check=True, timeout=BUILD_S)
    work = tmp_path / "work"
    work.mkdir()
    check_installation(Path(sys.executable), str(home), home, work, database_url)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_works_in_a_bare_environment(wheel: Path, tmp_path: Path, database_url: str) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    subprocess.run(
        [*PIP, "--python", python, "install", "--constraint", ROOT / "constraints.txt", f"{wheel}[cpu]"], check=True
    )
    work = tmp_path / "work"
    work.mkdir()
    check_installation(python, "", home, work, database_url)
