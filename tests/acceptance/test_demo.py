"""``tussis demo`` as a person runs it: what it shows, what it leaves behind, and that nothing outlives it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.models import write_tiny
from tests.support.processes import ROOT, TUSSIS, Running, Spawn
from tests.support.servers import server_folder
from tests.support.waiting import PATIENCE, wait_until
from tussis.shared.states import AnalysisState
from tussis.shared.store.records import Analysis, ResultFilter
from tussis.shared.store.repository import Store
from tussis.worker.embedded.accounts import OVERFLOW_ID
from tussis.worker.embedded.ports import is_free

#: Seconds for a whole run, and until everything is gone after its end, on a busy machine.
RUN_S = 180.0
GONE_S = 40.0
RECORDINGS = 3
#: So many recordings that a demo is still at work when a busy test has seen its line "enqueue".
MANY = 150


@dataclass(frozen=True)
class Place:
    """A demo's folder and the model it serves."""

    data: Path
    model: Path

    def words(self, *options: str | Path) -> list[str | Path]:
        """The command's arguments."""
        own: list[str | Path] = [
            "--data",
            self.data,
            "--model",
            self.model,
            "--concurrency",
            "1",
            "--recordings",
            str(RECORDINGS),
        ]
        return ["demo", *own, *options]

    def environment(self) -> dict[str, str]:
        """The variables in the file that the demo tells people to source."""
        shell = subprocess.run(
            ["/bin/sh", "-c", '. "$0"; exec env', self.data / "environment"], capture_output=True, text=True, check=True
        )
        return dict(line.split("=", 1) for line in shell.stdout.splitlines() if line.startswith(("TUSSIS_", "AWS_")))

    def analyses(self) -> list[Analysis]:
        """What the store of a demo that is kept running holds, in the order of the keys."""
        with Store.connect(self.environment()["TUSSIS_DATABASE_URL"]) as store:
            return sorted(store.results(ResultFilter()), key=lambda analysis: analysis.key)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """A folder in which one demo has run."""
    with server_folder() as folder:
        place = Place(folder / "demo", write_tiny(folder))
        spawn = Spawn()
        try:
            first = spawn(*place.words())
            assert first.wait(RUN_S) == 0, first.text
            assert_shows_results(first, place)
            assert "reused" not in first.text
            assert_gone(first, place)
        finally:
            spawn.end()
        yield place


@pytest.fixture(scope="module")
def many(place: Place) -> Path:
    """A folder with enough recordings for a worker to be in the middle of them."""
    folder = place.data.parent / "many"
    folder.mkdir()
    sound = next(path for path in (place.data / "synthetic-1").iterdir() if path.suffix == ".wav")
    for number in range(MANY):
        shutil.copy(sound, folder / f"{number:03}.wav")
    return folder


def keys(place: Place) -> list[str]:
    return sorted(f"synthetic/{path.name}" for path in (place.data / "synthetic-1").iterdir())


def assert_shows_results(run: Running, place: Place) -> None:
    """A line of the table for every recording, and the lines below it."""
    for key in keys(place):
        row = (
            re.escape(f"s3://tussis-demo/{key}")
            + r" +\d+\.\d s +[01]\.\d{3} +(cough|no cough) +\d+ .*tiny@1 +documented"
        )
        assert any(re.search(row, line) for line in run.stdout), (key, run.text)
    assert any(line.startswith(f"done          {RECORDINGS} recordings, ") for line in run.stdout), run.text
    assert any(re.match(r"time +[\d.]+ s: start-up [\d.]+ s, analysis [\d.]+ s", line) for line in run.stdout), run.text
    assert any(line.startswith(f"data          {place.data}, with the worker's log worker.log") for line in run.stdout)
    assert run.stdout[-1].startswith("stopped ")
    assert run.stderr == []


def descendants(run: Running) -> list[psutil.Process]:
    return list(psutil.Process(run.pid).children(recursive=True))


def assert_gone(run: Running, place: Place, processes: Sequence[psutil.Process] = ()) -> None:
    """None of the processes lives, nobody listens on the servers' ports, and none works in the demo's folder."""
    psutil.wait_procs(processes, timeout=GONE_S * PATIENCE)
    assert [process for process in processes if process.is_running()] == []
    ports = [
        int(port) for file in (place.data / "servers").glob("*.ports") for port in re.findall(r"\d+", file.read_text())
    ]
    assert ports
    wait_until(lambda: all(map(is_free, ports)), GONE_S, f"the ports {ports} to be free")
    wait_until(lambda: not at_work_in(place.data), GONE_S, f"the end of {at_work_in(place.data)}")
    assert not run.running


def at_work_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) or any(str(folder) in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def worker_of(run: Running) -> psutil.Process:
    """The worker's parent process: the first of its name below the demo."""
    for process in descendants(run):
        with contextlib.suppress(psutil.NoSuchProcess):  # the servers have children that come and go
            if process.cmdline()[1:4] == [str(TUSSIS), "worker", "cpu"]:
                return process
    raise AssertionError(run.text)


def test_a_second_run_reuses_everything_and_dies_as_a_whole(place: Place, spawn: Spawn) -> None:
    second = spawn(*place.words("--keep"))
    second.wait_for_line("running  ", RUN_S)
    analyses = place.analyses()

    assert any("0 of 3 to s3://tussis-demo, 3 were there already" in line for line in second.stdout)
    assert second.wait_for_line("reused  ", 1).startswith("reused        all from 20")
    assert [analysis.key for analysis in analyses] == keys(place)
    for analysis in analyses:
        assert (analysis.state, analysis.attempts, analysis.forced_by) == (AnalysisState.SUCCEEDED, 1, "")
        row = second.wait_for_line(analysis.uri, 1)
        answer = "cough" if analysis.decision else "no cough"
        assert f"{analysis.bag_probability:.3f}  {answer} " in row

    other = spawn(*place.words())
    assert other.wait(60) == 1
    assert other.stderr == [
        f"tussis: {place.data}/servers is in use by process {second.pid}: stop it, or choose another folder"
    ]

    processes = descendants(second)
    assert len(processes) >= 9  # three servers, the worker and its child, their guards
    second.signal(signal.SIGKILL)
    assert_gone(second, place, processes)


def test_what_was_analysed_is_analysed_anew_when_asked(place: Place, spawn: Spawn) -> None:
    again = spawn(*place.words("--again", "--keep"))
    again.wait_for_line("running  ", RUN_S)
    analyses = place.analyses()

    assert not any(line.startswith("reused") for line in again.stdout)
    assert [analysis.key for analysis in analyses if analysis.forced_by] == keys(place)

    again.signal(signal.SIGINT, group=True)  # how a person leaves it

    assert again.wait(GONE_S) == 0
    assert again.stdout[-1].startswith("stopped ")
    assert_gone(again, place)


@pytest.mark.faults_only
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM], ids=lambda blow: blow.name)
def test_an_interrupted_demo_stops_all_it_started(place: Place, many: Path, spawn: Spawn, blow: signal.Signals) -> None:
    run = spawn(*place.words("--again", "--recordings", str(MANY), "--audio", many))
    run.wait_for_line("enqueue  ", RUN_S)
    processes = descendants(run)

    run.signal(blow, group=True)

    assert run.wait(GONE_S) == 128 + blow
    assert run.stdout[-1].startswith("interrupted   by " + ("Ctrl-C" if blow is signal.SIGINT else blow.name))
    assert run.stderr == []
    assert_gone(run, place, processes)


@pytest.mark.faults_only
def test_a_demo_killed_mid_way_leaves_nothing_and_the_next_one_finishes_its_work(
    place: Place, many: Path, spawn: Spawn
) -> None:
    run = spawn(*place.words("--again", "--recordings", str(MANY), "--audio", many))
    run.wait_for_line("enqueue  ", RUN_S)
    processes = descendants(run)

    run.signal(signal.SIGKILL)

    assert_gone(run, place, processes)
    after = spawn(*place.words("--recordings", str(MANY), "--audio", many))
    assert after.wait(RUN_S) == 0, after.text
    assert any(line.startswith(f"done          {MANY} recordings, ") for line in after.stdout), after.text


@pytest.mark.faults_only
def test_a_demo_ends_when_the_process_that_started_it_is_killed(place: Place, spawn: Spawn) -> None:
    words = shlex.join(str(word) for word in (TUSSIS, *place.words("--keep")))
    shell = spawn("-c", f"{words}; true", program="/bin/sh")
    shell.wait_for_line("running  ", RUN_S)
    processes = descendants(shell)

    shell.signal(signal.SIGKILL)

    assert_gone(shell, place, processes)


@pytest.mark.faults_only
def test_a_worker_that_dies_ends_the_demo_with_one_line(place: Place, many: Path, spawn: Spawn) -> None:
    run = spawn(*place.words("--again", "--recordings", str(MANY), "--audio", many))
    run.wait_for_line("enqueue  ", RUN_S)
    processes = descendants(run)

    worker_of(run).kill()

    assert run.wait(GONE_S) == 1
    (line,) = run.stderr
    assert line.startswith("tussis: the worker ended: ")
    assert line.endswith(f"; see {place.data}/worker.log")
    assert_gone(run, place, processes)


def test_a_folder_of_ones_own_with_a_broken_file(place: Place, spawn: Spawn, pack: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my recordings"
    (folder / "phone [1]").mkdir(parents=True)
    shutil.copy(pack / "formats" / "webm_opus_mediarecorder.webm", folder / "phone [1]" / "übung\t#1?.webm")
    shutil.copy(pack / "formats" / "mp3_cbr64_mono_48k_noxing.mp3", folder / "cough.MP3")
    (folder / "broken.wav").write_bytes(b"RIFF is not enough")
    (folder / "notes.txt").write_text("no recording")

    run = spawn(*place.words("--audio", folder))

    assert run.wait(RUN_S) == 0, run.text
    rows = [line.strip() for line in run.stdout if line.startswith("s3://") or line.startswith(" s3://")]
    assert len(rows) == 3
    assert re.match(r"s3://tussis-demo/my recordings/broken\.wav +- +not_audio +-", rows[0])
    assert re.match(r"s3://tussis-demo/my recordings/cough\.MP3 +\d+\.\d s +[01]\.\d{3} +(no )?cough ", rows[1])
    assert re.match(r"s3://tussis-demo/my recordings/phone \[1\]/übung\\t#1\?\.webm +\d+\.\d s ", rows[2])
    assert any(line.startswith("failed        my recordings/broken.wav: not_audio: ") for line in run.stdout)
    assert any("1 failed" in line for line in run.stdout if line.startswith("done "))
    assert_gone(run, place)


def test_mistakes_are_told_in_one_line_before_anything_starts(spawn: Spawn, tmp_path: Path) -> None:
    data = tmp_path / "data"
    file = tmp_path / "file"
    file.write_text("")
    cases: list[tuple[list[str | Path], str]] = [
        (["--data", data, "--audio", tmp_path / "none"], f"the folder of recordings does not exist: {tmp_path}/none"),
        (["--data", data, "--model", tmp_path / "no.onnx"], f"no model file {tmp_path}/no.onnx: check the path"),
        (["--data", file / "data"], f"cannot write {file}/data: Not a directory; choose another folder"),
    ]
    for options, said in cases:
        run = spawn("demo", *options)
        assert run.wait(30) == 1
        (line,) = run.stderr
        assert line.startswith(f"tussis: {said}")
        assert run.stdout == []
    assert not (data / "servers").exists()


@pytest.mark.faults_only
@pytest.mark.skipif(os.geteuid() != 0, reason="who is no root runs every other test as an ordinary user")
def test_an_ordinary_user_runs_it_where_he_may_write(spawn: Spawn) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("there is no setpriv to become another user with")
    become = [setpriv, "--reuid", str(OVERFLOW_ID), "--regid", str(OVERFLOW_ID), "--clear-groups"]
    probe = [*become, sys.executable, "-c", "import tussis.worker.demo.run, tussis.worker.parent.service"]
    if subprocess.run(probe, cwd=ROOT, capture_output=True, timeout=120, check=False).returncode != 0:
        pytest.skip("an ordinary user cannot read this checkout or its environment")
    with server_folder() as folder:
        home = folder / "home"
        home.mkdir(mode=0o700)
        place = Place(home / ".tussis" / "demo", write_tiny(home))
        for path in (home, *home.iterdir()):
            os.chown(path, OVERFLOW_ID, OVERFLOW_ID)

        run = spawn(*become[1:], TUSSIS, *place.words(), program=become[0], environment={"HOME": str(home)})

        assert run.wait(RUN_S) == 0, run.text
        assert_shows_results(run, place)
        assert {path.stat().st_uid for path in place.data.rglob("*")} == {OVERFLOW_ID}
        assert_gone(run, place)
