"""``tussis status``: show queues, workers, results and failures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tussis.worker.local.terminal import console, plain

if TYPE_CHECKING:
    import redis

    from tussis.shared.depth import Depth, SentJobs
    from tussis.shared.pauses import Pause
    from tussis.shared.store.records import ActiveModel, StateCounts

#: Seconds since its last update after which a worker is no longer listed.
_SILENT_S = 15.0


@dataclass(frozen=True)
class WorkerEntry:
    """The last update of a worker, and its age in seconds."""

    worker: str
    device: str
    children: int
    ready: int
    holding: list[str]
    model: str
    up_s: float
    seen_s: float
    decoder_jail: str = ""
    """What the jail of the decoder lacks; empty if nothing, and for an older worker."""

    def takes(self, queue: str) -> bool:
        """Whether this worker takes messages from a queue or a model queue."""
        from tussis.shared.queues import MODEL_SEPARATOR, Device, device_queue, model_of, queue_name

        device = device_queue(queue) in (queue_name(Device.ANY), queue_name(Device(self.device)))
        return device and model_of(queue) in (None, self.model, self.model.partition(MODEL_SEPARATOR)[0])


#: What a worker writes into its entry.
_ENTRY_FIELDS = {field.name for field in fields(WorkerEntry)} - {"up_s", "seen_s"} | {"started_at", "seen_at"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool) -> None:
    """Show queues, open jobs, workers, results and failures.

    Use it to see whether jobs wait, and whether workers take them.

    \b
    waiting       messages in the queues, by priority; workers take 0 first.
                  DEVICE@MODEL: jobs for the workers that serve this model
    in flight     messages that a worker has received and not acknowledged
    open          jobs without result and without failure
    deferred      open jobs that wait for their next attempt after a transient error
    dead letters  messages that no worker could read
    """
    from tussis.shared.broker import broker_errors, connect, redact
    from tussis.shared.broker_checks import risks_of
    from tussis.shared.ledger import Ledger
    from tussis.shared.pauses import Pauses
    from tussis.shared.settings import load_settings
    from tussis.shared.store.repository import Store

    settings = load_settings()
    url = settings.need_broker()
    client = connect(url)
    depth = Ledger(client, redact(url)).depth()
    paused = Pauses(client, redact(url)).read()
    with broker_errors(redact(url)):
        workers = read_workers(client)
        unserved = unserved_queues(client, depth, workers)
        risks = risks_of(client)
    store = Store.connect(settings.need_database(), pool_size=1)
    try:
        store.verify_schema()
        counts = store.counts()
        active = store.active_model()
    finally:
        store.close()
    if as_json:
        more = {"paused": [asdict(pause) for pause in paused], "broker_risks": risks}
        click.echo(json.dumps(_as_json(depth, workers, counts, active, unserved) | more))
        return
    _print(depth, workers, counts, unserved)
    for pause in paused:
        console().print(_paused(pause))
    for entry in workers:
        if entry.decoder_jail:
            click.echo(f"decoder jail of {plain(entry.worker)}: {plain(entry.decoder_jail)}")
    for line in _about_models(workers, active, depth.total_waiting):
        console().print(line)
    for risk in risks:
        click.echo(f"broker: {risk}")


def read_workers(client: redis.Redis) -> list[WorkerEntry]:
    """The workers with an update within the last 15 s, sorted by name."""
    from tussis.shared.broker import server_time
    from tussis.shared.queues import WORKERS_KEY

    now = server_time(client)
    entries = []
    for text in client.hvals(WORKERS_KEY):
        # A newer worker may tell more.
        raw = {name: value for name, value in json.loads(text).items() if name in _ENTRY_FIELDS}
        up_s, seen_s = now - raw.pop("started_at"), now - raw.pop("seen_at")
        if seen_s <= _SILENT_S:
            entries.append(WorkerEntry(**raw, up_s=round(up_s, 1), seen_s=round(max(0.0, seen_s), 1)))
    return sorted(entries, key=lambda entry: entry.worker)


@dataclass(frozen=True)
class UnservedQueue:
    """A queue or model queue with open jobs that no live worker takes. ``since``: the oldest push, UTC, ISO 8601."""

    queue: str
    device: str
    model: str | None
    jobs: int
    since: str

    @classmethod
    def of(cls, sent: SentJobs) -> UnservedQueue:
        from tussis.shared.queues import device_queue, model_of

        since = datetime.fromtimestamp(sent.oldest, UTC).isoformat(timespec="seconds")
        return cls(sent.queue, device_queue(sent.queue).rpartition(".")[2], model_of(sent.queue), sent.jobs, since)


def unserved_queues(client: redis.Redis, depth: Depth, workers: list[WorkerEntry]) -> list[UnservedQueue]:
    """The queues with open jobs that no live worker takes. Raises redis-py's errors."""
    from tussis.shared.depth import read_sent_jobs

    queues = [queue for queue in depth.waiting if not any(worker.takes(queue) for worker in workers)]
    return [UnservedQueue.of(sent) for sent in read_sent_jobs(client, queues)]


def _paused(pause: Pause) -> str:
    since = "" if pause.since is None else f" since {datetime.fromtimestamp(pause.since, UTC):%Y-%m-%d %H:%M:%S} UTC"
    by = f" by {plain(pause.by)}" if pause.by else ""
    again = f"tussis resume {pause.queue.rpartition('.')[2]}"
    return f"[yellow]{plain(pause.queue)} is paused[/yellow]{since}{by}: workers take none of its messages ({again})"


def _about_models(workers: list[WorkerEntry], active: ActiveModel | None, waiting: int) -> list[str]:
    """Lines about the active model, for a deployment in which it was chosen or several models are served."""
    if active is None:
        return []
    model = plain(active.model)
    others = [entry for entry in workers if entry.ready and entry.model != active.model]
    served = any(entry.model == active.model for entry in workers)
    lines = []
    if active.explicit or others:
        how = "activated" if active.explicit else "the newest model that workers serve, active since"
        lines.append(f"active model {model} ({how} {active.since:%Y-%m-%d %H:%M:%S} UTC)")
    lines += [
        f"[yellow]{plain(entry.worker)} serves {plain(entry.model)}, active is {model}:[/yellow] it answers only jobs "
        "that name its model"
        for entry in others
    ]
    if not served and (active.explicit or others):
        lines.append(
            f"[yellow]no live worker serves the active model {model}:[/yellow] jobs that name no model wait for it "
            f"({waiting:,} messages wait in all). Start a worker with it, or run `tussis models activate` with another "
            "model"
        )
    return lines


def _as_json(
    depth: Depth,
    workers: list[WorkerEntry],
    counts: StateCounts,
    active: ActiveModel | None,
    unserved: list[UnservedQueue],
) -> dict[str, Any]:
    return {
        "waiting": depth.waiting,
        "waiting_total": depth.total_waiting,
        "unserved_queues": [one.queue for one in unserved],
        "unserved": [asdict(one) for one in unserved],
        "in_flight": depth.in_flight,
        "open": depth.open,
        "deferred": depth.deferred,
        "oldest_open_s": depth.oldest_open_s,
        "workers": [asdict(entry) for entry in workers],
        "results": {"cough": counts.cough, "no_cough": counts.no_cough},
        "failures": dict(counts.failures),
        "discarded": counts.discarded,
        "cancelled": counts.cancelled,
        "running": counts.running,
        "waiting_for_retry": counts.waiting,
        "dead_letters": counts.dead_letters,
        "active_model": None
        if active is None
        else {
            "model": active.model,
            "explicit": active.explicit,
            "since": active.since.isoformat(),
            "workers": sum(entry.model == active.model for entry in workers),
        },
    }


def _print(depth: Depth, workers: list[WorkerEntry], counts: StateCounts, unserved: list[UnservedQueue]) -> None:
    from rich import box
    from rich.table import Table

    from tussis.shared.queues import model_of

    screen = console()
    queues = Table(box=box.SIMPLE_HEAD, title="waiting", title_justify="left")
    queues.add_column("queue")
    priorities = sorted({priority for steps in depth.waiting.values() for priority in steps})
    for priority in priorities:
        queues.add_column(f"priority {priority}", justify="right")
    queues.add_column("all", justify="right")
    for queue, steps in depth.waiting.items():
        if model_of(queue) and not steps:
            continue
        queues.add_row(plain(queue), *(f"{steps.get(p, 0):,}" for p in priorities), f"{sum(steps.values()):,}")
    screen.print(queues)
    for one in unserved:
        model = f" with model {plain(one.model)}" if one.model else ""
        device = "any" if one.device == "any" else f"a {one.device}"
        jobs = "1 open job waits" if one.jobs == 1 else f"{one.jobs:,} open jobs wait"
        screen.print(
            f"[yellow]{plain(one.queue)}: no live worker takes its messages:[/yellow] {jobs} for {device} "
            f"worker{model}, since {one.since}"
        )
    oldest = "none open" if depth.oldest_open_s is None else f"oldest {_span(depth.oldest_open_s)}"
    screen.print(f"open {depth.open:,} ({oldest})   in flight {depth.in_flight:,}   deferred {depth.deferred:,}")
    failures = ", ".join(f"{plain(name)} {count:,}" for name, count in sorted(counts.failures.items()))
    cancelled = f"cancelled {counts.cancelled:,}   " if counts.cancelled else ""
    screen.print(
        f"results {counts.succeeded:,} ({counts.cough:,} cough, {counts.no_cough:,} no cough)   "
        f"failures {counts.failed:,}{f' ({failures})' if failures else ''}   "
        f"discarded {counts.discarded:,}   {cancelled}dead letters {counts.dead_letters:,}"
    )
    if not workers:
        screen.print("workers: none. Start one with: tussis worker cpu")
        return
    table = Table(box=box.SIMPLE_HEAD, title="workers", title_justify="left")
    for name in ("worker", "device", "ready", "up", "model"):
        table.add_column(name, overflow="fold")
    for entry in workers:
        ready = f"{entry.ready} of {entry.children}"
        table.add_row(plain(entry.worker), plain(entry.device), ready, _span(entry.up_s), plain(entry.model))
    screen.print(table)
    for entry in workers:
        for reason in entry.holding:
            screen.print(f"[yellow]{plain(entry.worker)} waits:[/yellow] {plain(reason)}")


def _span(seconds: float) -> str:
    """A duration in the largest unit that is not longer than it."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
