"""Choose the graph in a separate process, before a worker starts its children.

The choice loads the model several times, and a runtime's threads do not survive a fork. The parent never loads a model.
It therefore starts a process that ends after the choice. If that process fails, the original graph is used: slower, but
with the same outputs.
"""

from __future__ import annotations

import multiprocessing
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tussis.shared.errors import TussisError
from tussis.worker import logs
from tussis.worker.detector.tuning.choice import decide
from tussis.worker.detector.tuning.graph_cache import Choice

_log = logs.get("choice")

#: The timeout in seconds. The ResNet-18 takes less than 10 s. The process may have to wait for another worker that uses
#: the same cache folder.
_TIMEOUT_S: Final = 120.0


def decide_in_own_process(path: Path, *, intra_op_threads: int, cache_dir: Path) -> Choice | None:
    """Like :func:`~tussis.worker.detector.tuning.choice.decide`. None (the original graph) when that fails."""
    context = multiprocessing.get_context("fork")  # modules that the parent has imported are not imported again
    ours, theirs = context.Pipe(duplex=False)
    arguments = (theirs, path, intra_op_threads, cache_dir)
    process = context.Process(target=_decide, args=arguments, name="tussis-tuning", daemon=True)
    process.start()
    theirs.close()
    try:
        answer = ours.recv() if ours.poll(_TIMEOUT_S) else f"it took more than {_TIMEOUT_S:g} s"
    except EOFError:
        process.join()
        answer = f"its process ended with exit code {process.exitcode}"
    finally:
        process.kill()
        process.join()
        ours.close()
    if isinstance(answer, Choice):
        return answer
    if isinstance(answer, TussisError):
        return None  # loading the original raises the same error
    _log.warning("graph_not_decided", reason=answer)
    return None


def _decide(pipe: Connection, path: Path, threads: int, cache_dir: Path) -> None:
    import torch

    # Ctrl-C signals the whole process group. The parent ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    answer: Choice | TussisError
    try:
        answer = decide(path, intra_op_threads=threads, cache_dir=cache_dir)
    except TussisError as error:
        answer = error
    with suppress(BrokenPipeError):  # the parent has ended
        pipe.send(answer)
