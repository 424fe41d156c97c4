"""Options that several commands have."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from tussis.shared.errors import InvalidJob
from tussis.shared.recommended_metadata import check_recommended

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]


def json_object(text: str) -> dict[str, Any]:
    """The type of --metadata: a JSON object with valid recommended names. Raises :class:`click.BadParameter`."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON: {error}") from None
    if not isinstance(read, dict):
        raise click.BadParameter('not a JSON object: write for example \'{"site": "north"}\'')
    try:
        check_recommended(read)
    except InvalidJob as error:
        raise click.BadParameter(str(error)) from None
    return read


def job_options(command: F) -> F:
    """``model``, ``profile``, ``coverage``, ``priority``, ``device`` and ``metadata``: the fields of every job."""
    return _all(command, _JOB)


def wait_options(command: F) -> F:
    """``wait`` and ``timeout_s``."""
    return _all(command, _WAIT)


def address_options(command: F) -> F:
    """``broker_url`` and ``s3_endpoint_url``."""
    return _all(command, _ADDRESSES)


def max_depth_option(command: F) -> F:
    """``max_depth``."""
    return _all(command, _MAX_DEPTH)


def _all(command: F, options: tuple[Decorator[F], ...]) -> F:
    """The options in the order of the help text."""
    for option in reversed(options):
        command = option(command)
    return command


_JOB: tuple[Decorator[Any], ...] = (
    click.option(
        "--model", metavar="NAME[@VERSION]", help="The model that analyses the recordings.  [the worker's model]"
    ),
    click.option("--profile", metavar="NAME", help="The preprocessing profile.  [the model's profile]"),
    click.option(
        "--coverage",
        type=click.Choice(["head", "full"]),
        help="head: the first 17.5 s; full: the whole recording.  [the model's coverage]",
    ),
    click.option(
        "--priority",
        type=click.IntRange(0, 9),
        default=5,
        show_default=True,
        help="0 is first, 9 is last, across all queues.",
    ),
    click.option(
        "--device",
        type=click.Choice(["any", "cpu", "gpu"]),
        default="any",
        show_default=True,
        help="The kind of worker that analyses the recordings.",
    ),
    click.option(
        "--metadata",
        type=json_object,
        metavar="JSON",
        help="A JSON object, stored with each recording. Recommended names: recorded_at, site, subject.",
    ),
)
_WAIT: tuple[Decorator[Any], ...] = (
    click.option("--wait", is_flag=True, help="Wait until the jobs have ended, and print their outcomes."),
    click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="Longest wait of --wait; exit status 3 if jobs are still open then.  [no limit]",
    ),
)
_ADDRESSES: tuple[Decorator[Any], ...] = (
    click.option("--broker-url", metavar="URL", help="URL of the broker.  [TUSSIS_BROKER_URL]"),
    click.option(
        "--s3-endpoint-url", metavar="URL", help="URL of the S3 endpoint.  [TUSSIS_S3_ENDPOINT_URL, or Amazon S3]"
    ),
)
_MAX_DEPTH: tuple[Decorator[Any], ...] = (
    click.option(
        "--max-depth",
        type=click.IntRange(min=1),
        metavar="N",
        help="Enqueue only while fewer than N jobs are open in the broker; wait otherwise.  [no bound]",
    ),
)
