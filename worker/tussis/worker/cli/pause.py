"""``tussis pause`` and ``tussis resume``: stop and continue the taking of messages from a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tussis.shared.pauses import Pauses

_QUEUE = click.argument("queue", type=click.Choice(["any", "cpu", "gpu"]), required=False, metavar="[any|cpu|gpu]")


@click.command()
@_QUEUE
@click.option("--by", metavar="TEXT", help="Who pauses; `tussis status` shows it.  [user@host]")
def pause(queue: str | None, by: str | None) -> None:
    """Pause a queue, or all queues.

    Workers finish what they have in work. Within a few seconds they take no further message from the queue, and none
    for a model from the jobs of its device. Jobs can still be enqueued, and wait. Workers stay live and ready.

    The pause lasts until `tussis resume`, also when workers and the broker restart.

    \b
    Examples:
      tussis pause gpu
      tussis pause
    """
    from tussis.worker.cli.who import who_of

    who = who_of(by)
    queues = _queues(queue)
    new = _pauses().pause(queues, who)
    for name in queues:
        click.echo(f"{name}\t{'paused' if name in new else 'was paused already'}")


@click.command()
@_QUEUE
def resume(queue: str | None) -> None:
    """Resume a paused queue, or all queues. Workers take messages again within a few seconds."""
    queues = _queues(queue)
    resumed = _pauses().resume(queues)
    for name in queues:
        click.echo(f"{name}\t{'resumed' if name in resumed else 'was not paused'}")


def _queues(queue: str | None) -> tuple[str, ...]:
    from tussis.shared.queues import QUEUES, Device, queue_name

    return QUEUES if queue is None else (queue_name(Device(queue)),)


def _pauses() -> Pauses:
    from tussis.shared.broker import connect, redact
    from tussis.shared.pauses import Pauses
    from tussis.shared.settings import load_settings

    url = load_settings().need_broker()
    return Pauses(connect(url), redact(url))
