"""``tussis models activate`` and ``tussis models list``: the models of a deployment."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from tussis.shared.text import printable
from tussis.worker.cli.who import who_of
from tussis.worker.local.terminal import console, plain

if TYPE_CHECKING:
    from datetime import datetime

    from tussis.shared.store.records import KnownModel


@click.command()
@click.argument("model", metavar="NAME@VERSION")
@click.option("--force", is_flag=True, help="Activate it although no worker serves it, or it has no result.")
@click.option("--by", metavar="TEXT", help="Who activates it, for `tussis models list`.  [default: user@host]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def activate(model: str, force: bool, by: str | None, as_json: bool) -> None:
    """Make NAME@VERSION the active model: it answers the jobs that name no model.

    Two things are checked: a worker serves the model now, and the store has at least one result of it. Get results
    before the activation with jobs that name the model. A worker must have served the model in any case.

    The view `current` shows the answers of the active model at once, and for other recordings those of the model that
    was active before. To go back, activate the earlier model.

    \b
    Example:
      tussis models activate cough@4
    """
    from tussis.shared.settings import load_settings
    from tussis.shared.store.repository import Store

    name, _, version = model.partition("@")
    if not name or not version:
        raise click.UsageError(f"{model!r} is not NAME@VERSION, for example cough@4.")
    who = who_of(by)
    with Store.connect(load_settings().need_database()) as store:
        store.verify_schema()
        done = store.activate(model, activated_by=who, force=force)
    if as_json:
        click.echo(json.dumps({"model": done.model, "before": done.before, "by": who, "skipped": list(done.skipped)}))
        return
    for reason in done.skipped:
        click.echo(printable(f"activated although {reason}"))
    if done.before == done.model:
        click.echo(printable(f"{done.model} is the active model, as before. From now on only this command changes it."))
        return
    click.echo(printable(f"{done.model} is the active model"))
    if done.before is not None:
        click.echo(printable(f"before: {done.before}; to go back: tussis models activate {done.before}"))


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def list_models(as_json: bool) -> None:
    """List the models that workers have served, the active one first.

    `workers` counts the live workers in the broker. `results` are the succeeded analyses in the store, also those that
    are not in the view `current` and those of the shadow model. `state` names the active model, and the shadow model
    with its share. `active since` has no time for a model that never was active: it answers only jobs that name it.
    """
    from tussis.shared.broker import broker_errors, connect, redact
    from tussis.shared.settings import load_settings
    from tussis.shared.store.repository import Store
    from tussis.worker.cli.status import read_workers

    settings = load_settings()
    url = settings.need_broker()
    with broker_errors(redact(url)):
        serving = [entry.model for entry in read_workers(connect(url))]
    with Store.connect(settings.need_database()) as store:
        store.verify_schema()
        found = store.models()
        shadow = store.shadow()
    shares = {} if shadow is None else {shadow.model: shadow.share}
    if as_json:
        for model in found:
            row = _as_object(model, serving.count(model.model))
            click.echo(json.dumps(row | {"shadow_share": shares.get(model.model)}))
        return
    if not found:
        click.echo("No model yet: start a worker with `tussis worker cpu`.")
        return
    _print(found, serving, shares)


def _as_object(model: KnownModel, workers: int) -> dict[str, Any]:
    def text(at: datetime | None) -> str | None:
        return None if at is None else at.isoformat()

    return {
        "model": model.model,
        "active": model.active,
        "workers": workers,
        "results": model.results,
        "profile": model.profile,
        "threshold": model.threshold,
        "parent": model.parent,
        "first_seen_at": text(model.first_seen_at),
        "last_served_at": text(model.last_served_at),
        "active_at": text(model.active_at),
        "activated_at": text(model.activated_at),
        "activated_by": model.activated_by,
        "forced": model.forced,
    }


def _print(found: list[KnownModel], serving: list[str], shares: dict[str, float]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    for heading in ("model", "state", "workers", "results", "profile", "threshold", "active since", "last activated"):
        table.add_column(heading, justify="right" if heading in ("workers", "results", "threshold") else "left")
    for model in found:
        table.add_row(
            plain(model.model),
            "[bold]active[/]"
            if model.active
            else f"shadow, {100 * shares[model.model]:g} %"
            if model.model in shares
            else "",
            f"{serving.count(model.model):,}",
            f"{model.results:,}",
            plain(model.profile),
            f"{model.threshold:g}",
            _time(model.active_at),
            _time(model.activated_at)
            + ("" if model.activated_by is None else f" by {plain(model.activated_by)}")
            + (" (forced)" if model.forced else ""),
        )
    console().print(table)


def _time(at: datetime | None) -> str:
    return "never" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"
