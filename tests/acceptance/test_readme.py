"""The documents' commands are real: every verb, option and make target exists, and the marked blocks run.

A block under ``<!-- runs beside the demo -->`` is run, in order with the others of that kind, beside a demo that is
kept. Job ids in it stand for the last one that was printed. ``test_tutorial.py`` runs the tutorial in the same way.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import pytest

from tests.support.models import write_tiny
from tests.support.processes import ROOT, Spawn
from tests.support.servers import server_folder
from tussis.producer.cli import root
from tussis.shared.store.schema import SCHEMA_REVISION

DOCUMENTS: Final = (
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
RUNS: Final = "<!-- runs beside the demo -->"
#: Languages of fenced blocks in which lines with a prompt are commands.
SHELLS: Final = ("console", "sh", "shell", "bash")
JOB_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
RUN_S: Final = 180.0


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, what stands before it, and its lines."""

    document: Path
    line: int
    language: str
    before: str
    lines: tuple[str, ...]

    @property
    def commands(self) -> list[str]:
        """Its commands, without prompt; a line that ends in a backslash goes on."""
        text = "\n".join(self.lines).replace("\\\n", " ")
        return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


def blocks(document: Path) -> Iterator[Block]:
    lines = document.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        before = next((text for text in reversed(lines[:start]) if text.strip()), "")
        yield Block(document, start + 1, lines[start][3:].strip(), before, tuple(lines[start + 1 : number]))
        start = None
    assert start is None, f"{document} has a block without an end, from line {start}"


def prose(document: Path) -> str:
    """The document without its blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands_of(document: Path) -> list[str]:
    """The commands in its blocks, and the `tussis ...` and `make ...` in its prose."""
    written = [command for block in blocks(document) if block.language in SHELLS for command in block.commands]
    return written + re.findall(r"`((?:tussis|make) [^`]+)`", prose(document).replace("\n", " "))


def words_of(command: str) -> list[list[str]]:
    """The command's parts between pipes, ``;`` and ``&&``, each as words; comments and redirections cut off."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";&|"):
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]


def check_tussis(words: list[str]) -> None:
    """Fails unless verb, sub-verb and options exist. ``words`` come after ``tussis``."""
    command: click.Command = root
    context = click.Context(root, info_name="tussis")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]!r} in {context.command_path}"
        command, words = found, words[1:]
        context = click.Context(command, info_name=command.name, parent=context)
    known = {name for parameter in command.get_params(context) for name in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h"}
    for word in words:
        option = word.partition("=")[0]
        if re.fullmatch(r"-[a-z]|--[a-z][a-z0-9-]*", option):
            assert option in known, f"{context.command_path} has no option {option}: {sorted(known)}"


def check_make(words: list[str]) -> None:
    """Fails unless the targets exist. ``words`` come after ``make``; variables are the Makefile's own."""
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, assigned, _ = word.partition("=")
        what = rf"^(export )?{re.escape(name)}\b( =|$)" if assigned else rf"^{re.escape(name)}:"
        assert re.search(what, makefile, re.MULTILINE), f"the Makefile has no {name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_command_in_the_documents_exists(document: Path) -> None:
    for command in commands_of(document):
        for words in words_of(command):
            # A command may stand behind assignments, or behind the folder of its environment.
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            program = Path(words[0]).name if words else ""
            if program == "tussis":
                check_tussis(words[1:])
            elif program == "make":
                check_make(words[1:])


def test_the_check_notices_what_does_not_exist() -> None:
    check_tussis(["worker", "cpu", "--concurrency", "2"])
    check_make(["demo", "AUDIO=DIR"])
    for wrong in (["nonsense"], ["worker", "tpu"], ["worker", "cpu", "--speed=9"], ["results", "--jsno"]):
        with pytest.raises(AssertionError, match=r"there is no command|has no option"):
            check_tussis(wrong)
    for wrong in (["nonsense"], ["demo", "ADUIO=DIR"]):
        with pytest.raises(AssertionError, match="the Makefile has no"):
            check_make(wrong)
    assert words_of("a --b 'c d' | e; f && g < h") == [["a", "--b", "c d"], ["e"], ["f"], ["g", "<", "h"]]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_within_the_repository_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (document.parent / file).resolve() if file else document
        assert path.exists(), f"{document.name} links to {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{document.name} links to {target}"


def anchors(document: Path) -> set[str]:
    """The headings as links name them: lower case, hyphens for spaces, other punctuation dropped."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_nothing_is_installed_from_an_index_where_tussis_is_not(document: Path) -> None:
    text = document.read_text(encoding="utf-8")

    assert not re.search(r"pip install '?tussis(?!\S* @ )", text), "install from a checkout, or name its folder after @"


def test_the_readme_leads_each_user_on_in_five_minutes() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert len(text.split()) < 1_100  # at 220 words a minute
    for goal in ("docs/enqueue.md", "docs/query.md", "tussis worker cpu", "tussis status", "make demo", "make test"):
        assert goal in text


def test_the_changelog_names_every_migration() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    revisions = [path.name.partition("_")[0] for path in (ROOT / "migrations" / "versions").glob("[0-9]*.py")]

    assert revisions
    for revision in revisions:
        assert f"- `{revision}`" in text, f"CHANGELOG.md does not name migration {revision}"


def test_the_readmes_demo_is_that_of_this_schema() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert re.findall(r"^schema +revision (\d+) ", text, re.MULTILINE) == [SCHEMA_REVISION]


def test_the_readmes_tour_runs_beside_a_demo(spawn: Spawn) -> None:
    tour = [block for block in blocks(ROOT / "README.md") if block.before == RUNS]
    assert tour
    with server_folder() as folder:
        tiny = write_tiny(folder)
        demo = spawn("demo", "--keep", "--recordings", "3", "--concurrency", "1", "--model", tiny, cwd=folder)
        demo.wait_for_line("running  ", RUN_S)

        said = run_script([command for block in tour for command in block.commands], folder)

        for output in said:
            assert output.strip(), said
        demo.signal(signal.SIGINT)
        assert demo.wait(60) == 0


def run_script(commands: list[str], folder: Path) -> list[str]:
    """Run the commands in one shell, each of which has to succeed; what each printed on standard output.

    Only the first one's environment counts: a command that redirects its output prints the file instead.
    """
    printed: list[str] = []
    job_id = ""
    environment = {"PATH": os.defpath, "HOME": str(folder)}
    source, *rest = commands
    assert source.startswith(". ")
    for command in rest:
        written = re.search(r" > (\S+)$", command)
        show = f" && cat {written[1]}" if written else ""
        script = f"{source} && {JOB_ID.sub(job_id, command)}{show}"
        ended = subprocess.run(
            ["/bin/sh", "-c", script],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, (script, ended.stdout, ended.stderr)
        printed.append(ended.stdout)
        ids = [found[0] for found in JOB_ID.finditer(ended.stdout)]
        job_id = ids[-1] if ids else job_id
    return printed
