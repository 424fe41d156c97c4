"""``tussis models shadow`` and ``tussis models status``: a second model on a share of the new recordings."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

from tussis.shared.text import printable
from tussis.worker.cli.who import who_of

if TYPE_CHECKING:
    from tussis.shared.store.records import ShadowComparison


@click.command()
@click.argument("model", metavar="NAME@VERSION", required=False)
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the new recordings, above 0 and at most 1, for example 0.1.",
)
@click.option("--stop", is_flag=True, help="Stop the shadow model. What it has answered stays.")
@click.option("--by", metavar="TEXT", help="Who starts it, for `tussis models list`.  [default: user@host]")
def shadow(model: str | None, share: float | None, stop: bool, by: str | None) -> None:
    """Have NAME@VERSION analyse a share of the new recordings too, after the active model.

    Use it before an activation, to compare the two models on real recordings: `tussis models status`. The hash of
    bucket and key chooses the recordings. The jobs have the lowest priority. Their results and failures are not in the
    view `current`, not in `tussis results`, not in `tussis failures` and not in the counts of `tussis status`.

    The active model must have been chosen with `tussis models activate`, and a worker must serve NAME@VERSION. There is
    one shadow model. A new one replaces it.

    \b
    Examples:
      tussis models shadow cough@4 --share 0.1
      tussis models shadow --stop
    """
    from tussis.shared.settings import load_settings
    from tussis.shared.store.repository import Store

    if stop == (model is not None) or stop == (share is not None):
        raise click.UsageError("Give either NAME@VERSION and --share, or --stop.")
    if share is not None and math.isnan(share):
        raise click.UsageError("--share is not a number.")
    if model is not None:
        name, _, version = model.partition("@")
        if not name or not version:
            raise click.UsageError(f"{model!r} is not NAME@VERSION, for example cough@4.")
    who = who_of(by)
    with Store.connect(load_settings().need_database()) as store:
        store.verify_schema()
        if model is None or share is None:
            stopped = store.stop_shadow(stopped_by=who)
            if stopped is None:
                click.echo("There was no shadow model.")
            else:
                click.echo(printable(f"stopped {stopped.model}; its waiting jobs are still answered"))
            return
        before = store.start_shadow(model, share, started_by=who)
    click.echo(printable(f"{model} also analyses {100 * share:g} % of the new recordings; see `tussis models status`"))
    if before is not None:
        click.echo(printable(f"before: {before.model}, {100 * before.share:g} %"))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool) -> None:
    """Compare the shadow model with the active model, on the recordings that it was given.

    If the shadow model was stopped, it is the last one. The intervals are Wilson's, with 95 % confidence. The times are
    those from the claim to the stored result, without the wait in the queue.
    """
    from tussis.shared.settings import load_settings
    from tussis.shared.store.repository import Store

    with Store.connect(load_settings().need_database()) as store:
        store.verify_schema()
        found = store.shadow_comparison()
    if as_json:
        click.echo(json.dumps(None if found is None else _as_object(found)))
    elif found is None:
        click.echo("There was no shadow model yet: start one with `tussis models shadow NAME@VERSION --share 0.1`.")
    else:
        _print(found)


def _as_object(found: ShadowComparison) -> dict[str, Any]:
    from tussis.worker.evaluation.measures import proportion

    flips = proportion(found.to_cough + found.to_no_cough, found.compared)
    return {
        "shadow": found.model,
        "active": found.active,
        "share": found.share,
        "started_at": found.started_at.isoformat(),
        "stopped_at": None if found.stopped_at is None else found.stopped_at.isoformat(),
        "recordings": found.chosen,
        "compared": found.compared,
        "waiting": found.waiting,
        "flips": found.to_cough + found.to_no_cough,
        "flips_to_cough": found.to_cough,
        "flips_to_no_cough": found.to_no_cough,
        "flip_share": _number(flips.value),
        "flip_share_low": _number(flips.low),
        "flip_share_high": _number(flips.high),
        "mean_shift": found.mean_shift,
        "p95_shift": found.p95_shift,
        "max_shift": found.max_shift,
        "median_s": {"active": found.active_median_s, "shadow": found.median_s},
        "failures": {"active": found.active_failed, "shadow": found.failed},
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _print(found: ShadowComparison) -> None:
    from tussis.worker.evaluation.measures import proportion

    def line(name: str, text: str) -> None:
        click.echo(f"{name:<12}{printable(text)}")

    until = "" if found.stopped_at is None else f" to {found.stopped_at:%Y-%m-%d %H:%M:%S}, stopped"
    line("shadow", f"{found.model}, {100 * found.share:g} % since {found.started_at:%Y-%m-%d %H:%M:%S}{until}")
    line("active", found.active)
    line("recordings", f"{found.chosen:,} chosen, {found.compared:,} compared, {found.waiting:,} waiting")
    line("failures", f"shadow {found.failed:,}, active {found.active_failed:,}")
    if not found.compared:
        return
    assert found.mean_shift is not None
    assert found.p95_shift is not None
    assert found.max_shift is not None
    assert found.median_s is not None
    assert found.active_median_s is not None
    flips = found.to_cough + found.to_no_cough
    part = proportion(flips, found.compared)
    line(
        "flips",
        f"{flips:,} ({100 * part.value:.2f} %, interval {100 * part.low:.2f} to {100 * part.high:.2f} %): "
        f"{found.to_cough:,} to cough, {found.to_no_cough:,} to no cough",
    )
    line("shift", f"mean {found.mean_shift:.4f}, p95 {found.p95_shift:.4f}, largest {found.max_shift:.4f}")
    line("median time", f"shadow {found.median_s:.3f} s, active {found.active_median_s:.3f} s")
