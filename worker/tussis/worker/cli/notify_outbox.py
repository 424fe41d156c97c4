"""Subcommands of ``tussis notify`` that show and change what the broker holds for a notifier."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tussis.shared.text import printable

if TYPE_CHECKING:
    from tussis.shared.settings import Settings
    from tussis.worker.notify.outbox import Outbox, Undelivered
    from tussis.worker.notify.webhook import Webhook

#: Lines of the list unless --limit says otherwise.
_LIMIT = 50


def outbox_of(settings: Settings, name: str) -> Outbox:
    """The outbox of a notifier, for this process."""
    from tussis.shared.broker import connect, redact
    from tussis.worker.notify.outbox import Outbox

    url = settings.need_broker()
    token = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    return Outbox(connect(url), redact(url), name, token)


def commands(check_name: Callable[..., str], default: str) -> Iterator[click.Command]:
    """The subcommands."""
    name = click.option(
        "--name", default=default, show_default=True, metavar="NAME", callback=check_name, help="Name of the notifier."
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    ids = click.argument("ids", nargs=-1, metavar="[ID]...")
    everything = click.option("--all", "everything", is_flag=True, help="Select all.")
    dry_run = click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
    limit = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many, the oldest.")
    selected = (ids, everything, dry_run, name)
    for function, options in (
        (status, (name, as_json)),
        (list_, (limit, name, as_json)),
        (redeliver, selected),
        (drop, selected),
        (reopen, (name,)),
    ):
        decorated: Callable[..., None] = function
        for option in reversed(options):
            decorated = option(decorated)
        yield click.command(function.__name__.rstrip("_"))(decorated)


def status(name: str, as_json: bool) -> None:
    """Show whether a notifier works, what waits, and what is missing.

    The exit status is 0 if a notifier works, nothing was given up, and no outcome is missing. Otherwise it is 1.
    """
    from tussis.worker.notify.deliveries import GONE
    from tussis.worker.notify.intake import GAP, REPLAY, WANTED, parse_span
    from tussis.worker.notify.notifier import ENDPOINT

    outbox = outbox_of(_settings(), name)
    state, holder = outbox.state(), outbox.holder()
    waiting, undelivered = outbox.counts()
    failing = [webhook for webhook in outbox.load() if webhook.attempts]
    oldest = min(failing, key=lambda webhook: webhook.first_at or 0.0, default=None)
    gap = parse_span(state.get(GAP))
    replays = [parse_span(text) for field, text in state.items() if field == REPLAY or field.startswith(WANTED)]
    facts: dict[str, Any] = {
        "name": name,
        "endpoint": state.get(ENDPOINT),
        "working": holder,
        "gone": GONE in state,
        "waiting": waiting,
        "failing": len(failing),
        "failing_since": None if oldest is None else oldest.first_at,
        "reason": None if oldest is None else oldest.reason,
        "undelivered": undelivered,
        "missing": 0 if gap is None else gap.lost,
        "replay_since": min((span.since for span in replays if span is not None), default=None),
    }
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for line in _status_lines(facts):
            click.echo(printable(line))
    healthy = holder and not facts["gone"] and not undelivered and gap is None
    click.get_current_context().exit(0 if healthy else 1)


def _status_lines(facts: dict[str, Any]) -> Iterator[str]:
    where = f" to {facts['endpoint']}" if facts["endpoint"] else ""
    yield f"{facts['name']}: {'works in ' + facts['working'] if facts['working'] else 'no notifier works'}{where}"
    if facts["gone"]:
        yield "the receiver answered 410 (Gone): change the URL, or run `tussis notify reopen`"
    yield f"{facts['waiting']:,} webhooks wait, {facts['undelivered']:,} were given up"
    if facts["failing"]:
        yield (
            f"{facts['failing']:,} of them failed; the oldest since {_time(facts['failing_since'])}: {facts['reason']}"
        )
    if facts["missing"]:
        yield f"{facts['missing']:,} outcomes are missing: start the notifier with TUSSIS_DATABASE_URL to deliver them"
    if facts["replay_since"] is not None:
        yield f"outcomes since {_time(facts['replay_since'])} are being delivered again"


def list_(limit: int | None, name: str, as_json: bool) -> None:
    """List the webhooks that were given up, the oldest first. Times are in UTC.

    The broker keeps the newest 10,000 of them. With --json, each line has the whole request.
    """
    outbox = outbox_of(_settings(), name)
    most = limit if limit or as_json else _LIMIT
    shown = 0
    for found in outbox.undelivered():
        if shown == most:
            click.echo("There are more: use --limit.")
            return
        shown += 1
        click.echo(json.dumps(_as_object(found.webhook)) if as_json else _line(found.webhook))
    if not shown and not as_json:
        click.echo("No webhook was given up.")


def redeliver(ids: tuple[str, ...], everything: bool, dry_run: bool, name: str) -> None:
    """Deliver webhooks that were given up again, selected by ID or with --all.

    The notifier takes them within seconds, and tries each for another day. They keep their webhook-id.
    """
    outbox = outbox_of(_settings(), name)

    def again(found: Undelivered) -> bool:
        webhook = replace(found.webhook, attempts=0, first_at=None, due_at=0.0, reason="")
        return outbox.redeliver(found, webhook)

    _change(outbox, ids, everything, dry_run, again, "delivered again")


def drop(ids: tuple[str, ...], everything: bool, dry_run: bool, name: str) -> None:
    """Delete webhooks that were given up, selected by ID or with --all.

    `tussis notify --replay` can still deliver their outcomes from the database.
    """
    outbox = outbox_of(_settings(), name)
    _change(outbox, ids, everything, dry_run, outbox.drop, "dropped")


def reopen(name: str) -> None:
    """Send again to a receiver that answered 410 (Gone).

    Then start the notifier again. Outcomes that ended meanwhile follow.
    """
    from tussis.worker.notify.deliveries import GONE

    outbox = outbox_of(_settings(), name)
    if GONE not in outbox.state():
        click.echo(f"the notifier {name} is not stopped by a receiver")
        return
    outbox.set_state(**{GONE: ""})
    click.echo(f"reopened: start `tussis notify --name {name}` again")


def _change(
    outbox: Outbox,
    ids: Sequence[str],
    everything: bool,
    dry_run: bool,
    change: Callable[[Undelivered], bool],
    done: str,
) -> None:
    """Change the selected webhooks, and print their number. The exit status is 1 if an ID is unknown."""
    if bool(ids) == everything:
        raise click.UsageError("Give IDs (`tussis notify list`), or --all.")
    left = set(ids)
    changed = 0
    for found in list(outbox.undelivered()):
        if everything or found.webhook.webhook_id in left:
            left.discard(found.webhook.webhook_id)
            changed += dry_run or change(found)
    click.echo(f"{changed:,} webhooks {'would be ' if dry_run else ''}{done}")
    for unknown in sorted(left):
        click.echo(printable(f"tussis: no webhook with the id {unknown} was given up: `tussis notify list`"), err=True)
    if left:
        click.get_current_context().exit(1)


def _line(webhook: Webhook) -> str:
    first, attempts = _time(webhook.first_at), f"{webhook.attempts} attempts"
    return "\t".join(map(printable, (webhook.webhook_id, first, attempts, webhook.reason, webhook.recording)))


def _as_object(webhook: Webhook) -> dict[str, Any]:
    return {
        "webhook_id": webhook.webhook_id,
        "uri": webhook.recording,
        "attempts": webhook.attempts,
        "first_at": webhook.first_at,
        "reason": webhook.reason,
        "body": json.loads(webhook.body),
    }


def _time(at: float | None) -> str:
    return datetime.fromtimestamp(time.time() if at is None else at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _settings() -> Settings:
    from tussis.shared.settings import load_settings

    return load_settings()
