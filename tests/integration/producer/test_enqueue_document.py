"""What ``docs/enqueue.md`` tells people to type works as it stands."""

from __future__ import annotations

import shlex

import pytest
import redis
from click.testing import CliRunner

from tests.support.broker_state import open_jobs
from tests.support.enqueue_doc import block, blocks
from tests.support.servers import Bucket
from tussis.producer.cli import root


def test_the_python_of_the_document_runs(
    environment: dict[str, str], clinic: Bucket, broker: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    one, many = blocks("From Python", "python")

    told: dict[str, str] = {}
    exec(compile(one, "docs/enqueue.md", "exec"), told)
    assert open_jobs(broker) == [told["job_id"]]

    exec(compile(many, "docs/enqueue.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{told['job_id']} s3://clinic/2026/11/a.wav open already"
    assert printed[1].endswith(" s3://clinic/2026/11/b.mp3 sent")
    assert [line.split()[1] for line in printed[2:]] == ["s3://clinic/2026/10/c.wav", "s3://clinic/2026/10/d.wav"]
    assert len(open_jobs(broker)) == 4


def test_the_commands_of_the_document_run(environment: dict[str, str], clinic: Bucket, broker: redis.Redis) -> None:
    commands = [line.removeprefix("$ ") for line in block("From the command line", "console").splitlines()]
    summaries = []
    for command in commands:
        words, _, listing = command.partition(" < ")
        program, *arguments = shlex.split(words)
        assert program == "tussis"
        result = CliRunner().invoke(root, arguments, input="s3://clinic/2026/10/c.wav\n" if listing else None)
        assert result.exit_code == 0, (command, result.output)
        summaries.append(result.stderr.strip())

    assert summaries == ["1 enqueued", "2 enqueued", "1 would be enqueued", "1 enqueued"]
    assert len(open_jobs(broker)) == 4
