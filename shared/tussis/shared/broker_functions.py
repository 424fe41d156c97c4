"""The function library of the broker: every atomic step of Tussis, loaded once and called by name (FCALL).

A login then needs no right to run scripts of its own. The names and the forms of keys and arguments of the functions
are a contract with producers in other languages (``docs/wire-format.md``) and with other versions of Tussis:

* A function keeps its name, its keys, its arguments and its answer. A change that breaks one gets a new name, and the
  old function stays as long as programs of the earlier version may run.
* Each change of the library raises :data:`VERSION`. A newer library replaces an older one, and never the reverse.

So programs of two versions work with the library of the newer one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis
from redis.exceptions import NoPermissionError, ResponseError

from tussis.shared.batch_scripts import CLOSE_BATCH_SCRIPT, OPEN_BOUNDED_SCRIPT
from tussis.shared.broker import FunctionsMissing
from tussis.shared.forget_scripts import REMOVE_ENTRIES_SCRIPT
from tussis.shared.ledger_scripts import (
    CLOSE_MANY_SCRIPT,
    CLOSE_SCRIPT,
    DEFER_SCRIPT,
    FORGET_SCRIPT,
    OPEN_SCRIPT,
    PRUNE_SCRIPT,
    RESEND_SCRIPT,
    RETURN_SCRIPT,
    ROUTE_SCRIPT,
    SEND_AGAIN_SCRIPT,
    TELL_AGAIN_SCRIPT,
    TELL_BATCHES_SCRIPT,
)
from tussis.shared.move_script import MOVE_SCRIPT
from tussis.shared.outbox_scripts import (
    NOTIFY_ADD_SCRIPT,
    NOTIFY_GIVE_UP_SCRIPT,
    NOTIFY_LEAD_SCRIPT,
    NOTIFY_REDELIVER_SCRIPT,
    NOTIFY_SET_STATE_SCRIPT,
    NOTIFY_UPDATE_SCRIPT,
)
from tussis.shared.request_scripts import REQUEST_CLAIM_SCRIPT, REQUEST_END_SCRIPT, REQUEST_RENEW_SCRIPT
from tussis.shared.worker_scripts import (
    BEAT_SCRIPT,
    FILE_SCRIPT,
    GIVE_BACK_SCRIPT,
    LEAD_SCRIPT,
    OVERDUE_SCRIPT,
    PRIMARY_PROBE,
    REPORT_SCRIPT,
    RIGHTS_SCRIPT,
    SETTLE_SCRIPT,
)

#: Raise it with each change of a function. A test holds it to the text of the library.
VERSION: Final = 1

#: Function -> its script. The scripts of producers and of the others are told apart by the rights of the logins.
FUNCTIONS: Final[dict[str, str]] = {
    "tussis_open": OPEN_SCRIPT,
    "tussis_open_bounded": OPEN_BOUNDED_SCRIPT,
    "tussis_move": MOVE_SCRIPT,
    "tussis_close_batch": CLOSE_BATCH_SCRIPT,
    "tussis_close": CLOSE_SCRIPT,
    "tussis_close_many": CLOSE_MANY_SCRIPT,
    "tussis_prune": PRUNE_SCRIPT,
    "tussis_tell_again": TELL_AGAIN_SCRIPT,
    "tussis_tell_batches": TELL_BATCHES_SCRIPT,
    "tussis_defer": DEFER_SCRIPT,
    "tussis_send_again": SEND_AGAIN_SCRIPT,
    "tussis_route": ROUTE_SCRIPT,
    "tussis_resend": RESEND_SCRIPT,
    "tussis_return": RETURN_SCRIPT,
    "tussis_forget_queue": FORGET_SCRIPT,
    "tussis_remove_entries": REMOVE_ENTRIES_SCRIPT,
    "tussis_probe": PRIMARY_PROBE,
    "tussis_file": FILE_SCRIPT,
    "tussis_settle": SETTLE_SCRIPT,
    "tussis_beat": BEAT_SCRIPT,
    "tussis_overdue": OVERDUE_SCRIPT,
    "tussis_give_back": GIVE_BACK_SCRIPT,
    "tussis_report": REPORT_SCRIPT,
    "tussis_lead": LEAD_SCRIPT,
    "tussis_rights": RIGHTS_SCRIPT,
    "tussis_notify_lead": NOTIFY_LEAD_SCRIPT,
    "tussis_notify_add": NOTIFY_ADD_SCRIPT,
    "tussis_notify_update": NOTIFY_UPDATE_SCRIPT,
    "tussis_notify_set_state": NOTIFY_SET_STATE_SCRIPT,
    "tussis_notify_give_up": NOTIFY_GIVE_UP_SCRIPT,
    "tussis_notify_redeliver": NOTIFY_REDELIVER_SCRIPT,
    "tussis_request_claim": REQUEST_CLAIM_SCRIPT,
    "tussis_request_renew": REQUEST_RENEW_SCRIPT,
    "tussis_request_end": REQUEST_END_SCRIPT,
}
_VERSION_FUNCTION: Final = "tussis_version"
#: The first line of a script with flags.
_FLAGS: Final = re.compile(r"#!lua flags=(\S+)\n")


def _registered(name: str, script: str) -> str:
    found = _FLAGS.match(script)
    flags = ", ".join(f"'{flag}'" for flag in found[1].split(",")) if found else ""
    body = script[found.end() :] if found else script
    return (
        f"redis.register_function{{function_name = '{name}', flags = {{{flags}}}, callback = function(KEYS, ARGV)\n"
        f"{body}{'' if body.endswith(chr(10)) else chr(10)}end}}\n"
    )


_STEPS: Final = "".join(_registered(name, script) for name, script in FUNCTIONS.items())
#: Of the functions: differs when a function was changed.
DIGEST: Final = hashlib.sha256(_STEPS.encode()).hexdigest()
_OWN: Final = f"{VERSION} {DIGEST}"
#: The source of the library, for FUNCTION LOAD.
LIBRARY: Final = (
    f"#!lua name=tussis\n{_STEPS}redis.register_function{{function_name = '{_VERSION_FUNCTION}', "
    f"flags = {{'no-writes'}}, callback = function() return '{_OWN}' end}}\n"
)


def is_missing(error: Exception) -> bool:
    """Whether the broker has no function of the name that was called."""
    return isinstance(error, ResponseError) and "Function not found" in str(error)


def loaded_version(client: redis.Redis) -> int | None:
    """The version of the library that the broker has; None without one. Raises redis-py's errors."""
    found = _loaded(client)
    return None if found is None else int(found.split()[0])


def load(client: redis.Redis) -> bool:
    """Load the library unless the broker has it, or a newer one. True if it was loaded.

    Raises :class:`FunctionsMissing` if the broker has none and the login may not load it, and redis-py's errors.
    """
    found = _loaded(client)
    if found == _OWN or (found is not None and int(found.split()[0]) > VERSION):
        return False
    try:
        client.function_load(LIBRARY, replace=True)
    except NoPermissionError as error:
        if found is not None:  # The functions of the older library are enough until a worker loads this one.
            return False
        raise FunctionsMissing(str(error)) from error
    return True


def call(client: redis.Redis, name: str, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
    """Call a function of :data:`FUNCTIONS`, after loading the library if the broker has lost it.

    Raises :class:`FunctionsMissing` if the login may not load it, and redis-py's errors.
    """
    command = ("FCALL", name, len(keys), *keys, *arguments)
    execute: Any = client.execute_command  # redis-py leaves it untyped
    try:
        return execute(*command)
    except ResponseError as error:
        if not is_missing(error):
            raise
    load(client)
    try:
        return execute(*command)
    except ResponseError as error:
        raise FunctionsMissing(str(error)) if is_missing(error) else error from None


def function(client: redis.Redis, name: str) -> Callable[..., Any]:
    """A function of :data:`FUNCTIONS` as a callable with ``keys`` and ``args``. Raises as :func:`call`."""
    assert name in FUNCTIONS, name

    def called(*, keys: Sequence[Any] = (), args: Sequence[Any] = ()) -> Any:
        return call(client, name, keys, args)

    return called


def _loaded(client: redis.Redis) -> str | None:
    execute: Any = client.execute_command
    try:
        found = execute("FCALL", _VERSION_FUNCTION, 0)
    except ResponseError as error:
        if is_missing(error):
            return None
        raise
    return found.decode() if isinstance(found, bytes) else str(found)
