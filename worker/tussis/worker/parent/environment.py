"""Environment variables of Celery, kombu and billiard that have no effect on a worker of Tussis.

They are set for another application of the host, or by mistake: ``CELERY_BROKER_URL`` alone made a worker read another
broker than ``TUSSIS_BROKER_URL`` and report that it was ready. The libraries read most of them at import, so they are
removed from the environment before that. ``docs/settings.md`` has the table. A test compares it with the installed
sources.
"""

from __future__ import annotations

import os

#: All variables with these prefixes. Celery: URLs, loader, configuration module, pool, log level and file, remote
#: debugger, limits. kombu: logging of every broker call.
PREFIXES = ("CELERY_", "KOMBU_")
#: Further variables.
NAMES = frozenset(
    {
        "AUTOSCALE_KEEPALIVE",
        "C_BENCH",
        "C_BENCH_EVERY",
        "C_FORCE_ROOT",
        "C_IMPDEBUG",
        "C_REMDEBUG",
        "C_STRICT_APP",
        "C_WARN_APP",
        "C_WNOCONF",
        "DISABLE_TRACEBACKS",
        "EVENTLET_NOBLOCK",
        "FORKED_BY_MULTIPROCESSING",
        "MP_LOG",
        "MP_MAIN_FILE",
        "MULTIPROCESSING_FORKING_DISABLE",
        "NOSETPS",
        "PICKLE_PROTOCOL",
        "REMAP_SIGTERM",
        "TIMER_DEBUG",
        "USE_FAST_LOCALS",
        "_MP_FORK_LOGFILE_",
        "_MP_FORK_LOGFORMAT_",
        "_MP_FORK_LOGLEVEL_",
    }
)


def drop_foreign() -> list[str]:
    """Remove these variables from this process's environment. Returns the sorted names of those that were set.

    Call it before Celery is imported.
    """
    found = sorted(name for name in os.environ if name.startswith(PREFIXES) or name in NAMES)
    for name in found:
        del os.environ[name]
    return found
