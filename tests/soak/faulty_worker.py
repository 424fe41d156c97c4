"""A worker with faults on demand: the real worker, with some calls wrapped.

A recording whose bytes start with ``FAULT:<name>:`` triggers that fault when it is decoded. The bytes after this prefix
are the real recording. A fault that begins with ``device-`` is sent on and occurs in the device process
(:mod:`tests.soak.faulty_device`). Run it as ``python -m tests.soak.faulty_worker`` with the arguments of
``tussis worker``. Only for the soak and the tests: with recordings of others, a few bytes could end the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

MARKER = b"FAULT:"

#: A file, if set. Every recording that triggers a fault adds a line: pid and name of the fault.
STARTS_FILE = "FAULT_STARTS_FILE"


#: A file that does not exist yet, if set. The first result that is committed creates the file and kills its process.
KILL_AFTER_COMMIT = "FAULT_KILL_AFTER_COMMIT"

#: Files, if set. While the first exists, no child gets its model. While the second exists, the event loop hangs. While
#: the third exists, the worker takes no messages from the broker, but its loop runs.
SLOW_LOAD, STUCK_LOOP, DEAF = "FAULT_SLOW_LOAD", "FAULT_STUCK_LOOP", "FAULT_DEAF"


#: If set, the stop of Celery's pool never ends.
STUCK_STOP = "FAULT_STUCK_STOP"
#: If set, kombu's own transport is used, without Tussis' corrections.
UNGUARDED = "FAULT_UNGUARDED"
#: Seconds that the worker's clock is ahead, if set.
CLOCK_OFF = "FAULT_CLOCK_OFF"


#: The fault that the current recording carries. A child has one recording at a time.
_for_the_device: list[str] = []


def with_fault(name: str, recording: bytes = b"") -> bytes:
    """Return the bytes of a recording that triggers the fault ``name``.

    Names: segfault, exit, memory, hang, raise, no-memory, no-torch-memory, slow-SECONDS, or once-SECONDS, which is
    slow the first time only (with `STARTS_FILE`).

    In the device process: device-segfault, device-hang, device-fail, device-break, device-slow-SECONDS, or
    device-memory-MOST, which lacks memory while more than MOST recordings share the run.
    """
    return MARKER + name.encode() + b":" + recording


def _segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _out_of_memory() -> None:
    # The kernel does the same to a process when memory runs out.
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    # PyDLL keeps the GIL, as a codec that hangs in C may do.
    ctypes.PyDLL(None).sleep(3600)


def _raise() -> None:
    raise RuntimeError("a fault of our own making")


def _no_torch_memory() -> None:
    import torch

    torch.empty(1 << 55)


FAULTS: dict[str, Callable[[], object]] = {
    "segfault": _segfault,
    "exit": lambda: os._exit(7),
    "memory": _out_of_memory,
    "hang": _hang,
    "raise": _raise,
    "no-memory": lambda: bytearray(1 << 60),
    "no-torch-memory": _no_torch_memory,
}


def _wrapped(decode: Callable[..., Any]) -> Callable[..., Any]:
    def faulty(data: bytes, *arguments: Any, **options: Any) -> Any:
        if data.startswith(MARKER):
            name, data = data.removeprefix(MARKER).split(b":", 1)
            if name.startswith(b"jail-"):
                note(name.decode())
                return decode(MARKER + name + b":" + data, *arguments, **options)
            if name.startswith(b"device-"):
                _for_the_device[:] = [name.decode()]
                return decode(data, *arguments, **options)
            first = note(name.decode())
            kind, _, seconds = name.partition(b"-")
            if kind == b"slow" or (kind == b"once" and first):
                time.sleep(float(seconds))
            elif kind != b"once":
                FAULTS[name.decode()]()
        return decode(data, *arguments, **options)

    return faulty


def _wrapped_method(decode: Callable[..., Any]) -> Callable[..., Any]:
    return lambda jail, data, *arguments, **options: _wrapped(partial(decode, jail))(data, *arguments, **options)


def _stamping(inputs: Callable[..., Any]) -> Callable[..., Any]:
    from tests.soak.faulty_device import stamped

    def faulty(*arguments: Any) -> Any:
        wave = inputs(*arguments)
        return stamped(wave, _for_the_device.pop()) if _for_the_device else wave

    return faulty


def _killing(act: Callable[..., None]) -> Callable[..., None]:
    def faulty(*arguments: Any) -> None:
        path = os.environ.get(KILL_AFTER_COMMIT)
        if path and not Path(path).exists():
            Path(path).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        act(*arguments)

    return faulty


def _there(variable: str) -> bool:
    path = os.environ.get(variable)
    return path is not None and Path(path).exists()


def _slow(load: Callable[..., Any]) -> Callable[..., Any]:
    def faulty(*arguments: Any, **options: Any) -> Any:
        while _there(SLOW_LOAD):
            time.sleep(0.1)
        return load(*arguments, **options)

    return faulty


def _stuck(beat: Callable[..., None]) -> Callable[..., None]:
    def faulty(run_dir: Any, phase: Any) -> None:
        while _there(STUCK_LOOP):
            time.sleep(0.1)
        beat(run_dir, phase)

    return faulty


def _deaf(ask: Callable[..., Any]) -> Callable[..., Any]:
    def faulty(*arguments: Any, **options: Any) -> Any:
        return None if _there(DEAF) else ask(*arguments, **options)

    return faulty


def note(name: str) -> bool:
    """Record the fault and return whether it is the first of this name; always true without `STARTS_FILE`."""
    path = os.environ.get(STARTS_FILE)
    if not path:
        return True
    line = f"{os.getpid()} {name}\n"
    if _create(Path(path), line):
        return True
    with Path(path).open("a+") as file:
        file.seek(0)
        first = all(known.split()[-1] != name for known in file)
        file.write(line)
    return first


def _create(path: Path, text: str) -> bool:
    """Create a file that has its text as soon as it exists: tests wait for it. False if there is one."""
    if path.exists():
        return False
    own = path.with_name(f"{path.name}.{os.getpid()}")
    own.write_text(text)
    try:
        os.link(own, path)
    except FileExistsError:
        return False
    finally:
        own.unlink()
    return True


def main() -> None:
    """Wrap the calls, then run ``tussis worker``."""
    if off_s := float(os.environ.get(CLOCK_OFF, "0")):
        # This must precede the import of kombu, which binds the function by name.
        right = time.time
        vars(time)["time"] = lambda: right() + off_s
    from celery.concurrency.prefork import TaskPool

    from tests.support import jailed
    from tussis.shared.errors import TussisError
    from tussis.worker.audio.jail import host as jail_host
    from tussis.worker.audio.jail.decoder import JailedDecoder
    from tussis.worker.cli.worker import worker
    from tussis.worker.device import host
    from tussis.worker.device.scorer import DeviceScorer
    from tussis.worker.parent import transport
    from tussis.worker.pipeline import child, prepare, tasks
    from tussis.worker.status.rundir import RunDir

    # Each module or class gets one wrapped call, under the name by which it is called there.
    vars(prepare)["decode"] = _wrapped(vars(prepare)["decode"])
    setattr(JailedDecoder, "decode", _wrapped_method(JailedDecoder.decode))  # noqa: B010
    vars(jail_host)["ENTRY"] = jailed.entry("faulty")
    vars(tasks)["act"] = _killing(vars(tasks)["act"])
    vars(child)["open_chosen"] = _slow(vars(child)["open_chosen"])
    setattr(RunDir, "beat", _stuck(RunDir.beat))  # noqa: B010 - mypy takes no assignment to a method
    setattr(DeviceScorer, "inputs", _stamping(DeviceScorer.inputs))  # noqa: B010
    vars(host)["ENTRY"] = ["-m", "tests.soak.faulty_device"]
    transport.Channel._brpop_start = _deaf(transport.Channel._brpop_start)
    if os.environ.get(STUCK_STOP):
        TaskPool.on_stop = lambda pool: time.sleep(3600)
    if os.environ.get(UNGUARDED):
        vars(transport)["install"] = lambda: None
    try:
        worker(prog_name="tussis worker")
    except TussisError as error:
        sys.exit(f"tussis: {error}")


if __name__ == "__main__":
    main()
