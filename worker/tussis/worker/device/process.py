"""The device process: ``python -m tussis.worker.device.process ARGUMENTS``, a new interpreter that the worker starts.

It is not a fork of a process with threads of torch or onnxruntime, and it is never forked. It always ends when its
parent ends, because the pipe ``lifeline`` is closed then.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from tussis.shared.errors import TussisError
from tussis.worker import logs
from tussis.worker.detector.arithmetic import processor
from tussis.worker.device.arguments import DeviceArguments, Provider
from tussis.worker.shortage import is_shortage
from tussis.worker.status.rundir import RunDir

_log = logs.get("device")

#: Seconds between two reports to the parent.
_PULSE_S: Final = 1.0
#: Exit status of a process that had too little memory to start.
SHORT: Final = 4


def main() -> None:
    """Load the model, warm up, report, and serve. Never returns."""
    arguments = DeviceArguments.from_json(sys.argv[1])
    # A terminal and some service managers send signals to the whole process group. The parent ends this process after
    # the children.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logs.configure(arguments.log_format, arguments.log_level)
    threading.excepthook = _end
    run_dir = RunDir(Path(arguments.run_dir))
    life = Life(run_dir, arguments.lifeline)
    threading.Thread(target=life.watch, name="life", daemon=True).start()
    try:
        serve(arguments, run_dir, life)
    except TussisError as error:
        # A lack of memory at the start passes, for instance when the last device process ends. The parent tries again.
        short = is_shortage(error)
        life.say("loading" if short else "refused", str(error))
        os._exit(SHORT if short else 0)
    except BaseException as error:
        # An error that ends this thread ends the process at once. The children's connections are closed then.
        _log.error("device_ended", reason=f"{type(error).__name__}: {error}", exc_info=True)
        sys.stderr.flush()
        os._exit(1)


def serve(arguments: DeviceArguments, run_dir: RunDir, life: Life) -> None:
    """Load the model and serve children. Raises operator's errors, only before the process is ready."""
    began = time.monotonic()
    if arguments.provider is Provider.CPU:
        _log.warning("device_trial", reason="the device process computes on the CPU, which is for trials only")
    # torch is imported first, because onnxruntime uses the CUDA libraries that torch has loaded.
    import torch

    from tussis.worker.device import sockets
    from tussis.worker.device.engine import Engine
    from tussis.worker.device.meter import NoDeviceMeter, device_meter
    from tussis.worker.device.server import Server
    from tussis.worker.status.metrics import FILES

    # On a GPU torch does not need CPU threads. In a trial its threads would spin on cores that the children need: on a
    # busy machine that took 20 times the CPU time.
    torch.set_num_threads(1)
    engine = Engine.load(arguments)
    engine.warm_up(arguments)
    meter = device_meter(run_dir.path / FILES) if arguments.metered else NoDeviceMeter()
    meter.started()
    server = Server(engine, arguments, meter)
    listener = sockets.listen(run_dir.path)
    threading.Thread(target=server.accept, args=(listener,), name="accept", daemon=True).start()
    device = processor() if arguments.provider is Provider.CPU else engine.device_name
    life.say("ready", provider=arguments.provider.value, device=device)
    _log.info(
        "device_ready",
        pid=os.getpid(),
        provider=arguments.provider.value,
        device=engine.device_name,
        model=engine.manifest.label,
        seconds=round(time.monotonic() - began, 1),
    )
    server.run()


class Life:
    """Reports to the parent that this process lives, and exits when the parent has ended."""

    def __init__(self, run_dir: RunDir, lifeline: int) -> None:
        self._run_dir = run_dir
        self._lifeline = lifeline
        self._state = ("loading", "", "", "")
        self._lock = threading.Lock()

    def say(self, state: str, message: str = "", *, provider: str = "", device: str = "") -> None:
        """Report a new state: ``loading``, ``ready`` with what runs the model, or ``refused`` with the reason."""
        with self._lock:
            self._state = (state, message, provider, device)
            self._run_dir.report_device(*self._state)

    def watch(self) -> None:
        """Report until the parent closes its end of the pipe or ends."""
        while True:
            if select.select([self._lifeline], [], [], _PULSE_S)[0]:
                os._exit(0)
            with self._lock:
                self._run_dir.report_device(*self._state)


def _end(failure: Any) -> None:
    """End the process when a thread fails, because no other thread can do its work."""
    reason = f"{failure.exc_type.__name__}: {failure.exc_value}"
    trace = (failure.exc_type, failure.exc_value, failure.exc_traceback)
    _log.error("device_ended", reason=reason, exc_info=trace)
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
