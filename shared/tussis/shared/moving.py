"""Move open jobs to the lists of another device, when they are enqueued again for it.

The device is not part of a job id. So a job that was enqueued for workers that do not exist would keep the same job for
other workers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import redis
from redis.exceptions import NoPermissionError, ResponseError

from tussis.shared.broker import error_code
from tussis.shared.broker_functions import call
from tussis.shared.messages import entry_of, random_id
from tussis.shared.queues import DEFAULT_PRIORITY, LEDGER_KEY, Device, queue_name

_TEMPLATE: Final = entry_of("{}", random_id(), queue_name(Device.ANY), DEFAULT_PRIORITY)


def move_open(client: redis.Redis, wanted: Sequence[tuple[str, str]]) -> int | None:
    """Move those jobs (job id, device) that are open for another device. The number of moved jobs.

    None if the login has no right to it. Raises redis-py's other errors.
    """
    arguments: list[Any] = [_TEMPLATE]
    for job_id, device in wanted:
        arguments += [job_id, device, random_id()]
    try:
        return int(call(client, "tussis_move", [LEDGER_KEY], arguments))
    except (NoPermissionError, ResponseError) as error:
        if isinstance(error, NoPermissionError) or error_code(error) == "NOPERM":
            return None
        raise
