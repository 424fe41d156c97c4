"""Environment variables that Celery, kombu and billiard obey, and a worker of Tussis does not.

They are set for another application of the host, or by mistake: ``CELERY_BROKER_URL`` alone made a worker read another
broker than ``TUSSIS_BROKER_URL``, and say that it is ready. Most are read when the libraries are imported, so that they
are taken out of the environment before that. ``docs/settings.md`` has the table; a test holds it to the installed
sources.
"""

from __future__ import annotations

import os

#: Every variable whose name begins so: URLs, loader, configuration module, pool, log level and file, remote debugger,
#: limits of Celery's; logging of every broker call of kombu's.
PREFIXES = ("CELERY_", "KOMBU_")
#: And these.
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
    """Take them out of this process's environment. Returns the names of those that were set, sorted.

    To be called before Celery is imported.
    """
    found = sorted(name for name in os.environ if name.startswith(PREFIXES) or name in NAMES)
    for name in found:
        del os.environ[name]
    return found
