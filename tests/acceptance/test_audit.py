"""`tussis audit` as a process: files and a prefix in S3 give the same, and a limit ends it with status 1."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.audits import bursts, wav_of
from tests.support.processes import Spawn
from tests.support.servers import Bucket
from tussis.worker.embedded.servers import Servers

#: Seconds for a process that loads torch on a busy machine.
SLOW_S = 120.0


def test_a_prefix_gives_what_a_folder_gives(
    spawn: Spawn, bucket: Bucket, servers: Servers, tiny_model: Path, tmp_path: Path
) -> None:
    recordings = {"a.wav": wav_of(bursts(1.6, peak=0.02)), "b.wav": b"no audio", "c.wav": wav_of(bursts(0.7), 1)}
    for name, data in recordings.items():
        (tmp_path / name).write_bytes(data)
        bucket.put(f"2026/{name}", data)
    bucket.put("2025/d.wav", recordings["a.wav"])
    environment = dict(servers.endpoints.environment())

    found = []
    for source in (str(tmp_path), bucket.uri("2026/")):
        run = spawn("audit", source, "--model", str(tiny_model), "--json", environment=environment)
        assert run.wait(SLOW_S) == 0, run.text
        found.append(json.loads(run.stdout[0]))

    local, stored = found
    for document in found:
        for one in (*document["recordings"], *document["failures"]):
            one["uri"] = one["uri"].rpartition("/")[2]
    assert stored == local
    assert [one["uri"] for one in local["failures"]] == ["b.wav"]


def test_a_limit_ends_with_1_and_one_line(spawn: Spawn, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_of(bursts(1.6, peak=0.02)))

    run = spawn("audit", str(tmp_path), "--model", str(tiny_model), "--profiles", "legacy", "--max-shift", "0.001")

    assert run.wait(SLOW_S) == 1
    assert run.stderr[-1].startswith("tussis: profile legacy: the largest shift is ")
