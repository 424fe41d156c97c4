"""The tutorial's commands run, in order, beside ``tussis up``. `make faults` runs this test, to keep `make test` short.

A block under ``<!-- file: NAME -->`` is the text of that file, and one under ``<!-- runs beside tussis up -->`` is run.
"""

from __future__ import annotations

import csv
import json
import re
import signal
from typing import Final

import pytest

from tests.acceptance.test_readme import JOB_ID, RUN_S, blocks, run_script
from tests.support.models import write_tiny
from tests.support.processes import ROOT, Spawn
from tests.support.servers import server_folder
from tests.support.sounds import wav

RUNS: Final = "<!-- runs beside tussis up -->"
FILE: Final = re.compile(r"<!-- file: (\S+) -->")


@pytest.mark.faults_only
def test_the_tutorial_runs_beside_tussis_up(spawn: Spawn) -> None:
    tutorial = list(blocks(ROOT / "docs" / "tutorial.md"))
    with server_folder() as folder:
        for block in tutorial:
            if file := FILE.fullmatch(block.before):
                (folder / file[1]).write_text("\n".join(block.lines), encoding="utf-8")
        recordings = folder / "recordings" / "ward"
        recordings.mkdir(parents=True)
        (recordings / "a.wav").write_bytes(wav(3.0))
        (recordings / "notes.txt").write_bytes(b"no sound")
        up = spawn("up", "--concurrency", "1", "--model", write_tiny(folder), cwd=folder)
        up.wait_for_line("running  ", RUN_S)
        commands = [command for block in tutorial if block.before == RUNS for command in block.commands]
        said = dict(zip(commands[1:], run_script(commands, folder), strict=True))
        up.signal(signal.SIGINT)
        assert up.wait(60) == 0

    uploaded = said["tussis upload recordings --prefix s3://tussis/ --keep-names"]
    assert [line.split("\t")[1:] for line in uploaded.splitlines()[:2]] == [
        ["s3://tussis/ward/a.wav", "recordings/ward/a.wav"],
        ["s3://tussis/ward/notes.txt", "recordings/ward/notes.txt"],
    ]
    listed = said["tussis enqueue --prefix s3://tussis/"]
    assert len(JOB_ID.findall(listed)) == 2
    assert [line.split("\t")[0] for line in uploaded.splitlines()[:2]] == [
        found[0] for found in JOB_ID.finditer(listed)
    ]
    assert "s3://tussis/ward/a.wav" in said["tussis results"]
    assert "not_audio" in said["tussis failures list"]
    exported = [json.loads(line) for line in said["tussis results --json --segments > results.jsonl"].splitlines()]
    assert [len(one["segments"]) for one in sorted(exported, key=lambda one: str(one["uri"]))] == [6, 0]
    header, *rows = csv.reader(said["python export.py > results.csv"].splitlines())
    assert header[:2] == ["uri", "decision"]
    assert [(row[0], row[-1]) for row in rows] == [
        ("s3://tussis/ward/a.wav", ""),
        ("s3://tussis/ward/notes.txt", "not_audio"),
    ]
