"""``tussis sweep``: enqueue what has neither result nor open work."""

from __future__ import annotations

import difflib
import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from tussis.shared.text import printable

if TYPE_CHECKING:
    from tussis.shared.settings import Settings
    from tussis.shared.store.known import Question
    from tussis.shared.store.repository import Store
    from tussis.worker.sweep.sweep import Counts, SweptPage

#: Seconds between two lines of progress: on a terminal, and elsewhere.
_EVERY_S, _EVERY_S_LOGGED = 0.2, 60.0


@click.command()
@click.argument("prefix", metavar="S3_URI")
@click.option("--dry-run", is_flag=True, help="Print the URIs that would be enqueued, send nothing.")
@click.option(
    "--resume",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep the place in FILE: a sweep that was broken off goes on from there. Gone when the sweep is done.",
)
@click.option(
    "--max-depth",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="Wait while so many messages are in the queues or in flight.",
)
@click.option("--retry-failed", is_flag=True, help="Enqueue failures too, except those that were discarded.")
@click.option("--model", metavar="NAME[@VERSION]", help="The model that has to answer.  [the one in TUSSIS_MODEL]")
@click.option("--any-model", is_flag=True, help="A result of whatever model is a result.")
@click.option("--profile", metavar="NAME", help="The preprocessing profile.  [the model's own]")
@click.option(
    "--priority",
    type=click.IntRange(0, 9),
    default=9,
    show_default=True,
    help="0 comes first, 9 last: behind what upstream enqueues.",
)
@click.option(
    "--device",
    type=click.Choice(["any", "cpu", "gpu"]),
    default="any",
    show_default=True,
    help="The kind of worker that has to do it.",
)
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object, and no other line.")
def sweep(
    prefix: str,
    dry_run: bool,
    resume: Path | None,
    max_depth: int,
    retry_failed: bool,
    model: str | None,
    any_model: bool,
    profile: str | None,
    priority: int,
    device: str,
    as_json: bool,
) -> None:
    """Enqueue every object under s3://bucket/prefix that has neither a result nor open work.

    For what never was enqueued, for a broker that lost its data, and for a new model. A result counts when it is of the
    model that the workers serve, which is the one in TUSSIS_MODEL: set it as they have it, or name --model or
    --any-model. A failure stands (--retry-failed), unless its cause may be gone (a missing object); what was discarded
    stays so. Upstream's metadata and priority are known to the store and the broker only: a recording that no worker
    has had comes back without them.

    Run it as often as you like: nothing is answered twice. The exit status is 0 when the whole prefix was swept.

    \b
    Examples:
      tussis sweep s3://clinic/2026/ --dry-run
      tussis sweep s3://clinic --resume /var/lib/tussis/clinic.sweep --max-depth 20000
    """
    if any_model and model:
        raise click.UsageError("--model and --any-model exclude each other.")
    if dry_run and resume:
        raise click.UsageError("--dry-run keeps no place: leave --resume out.")
    from tussis.shared.broker import connect, redact
    from tussis.shared.dsp.profiles import profile_named
    from tussis.shared.errors import ObjectMissing
    from tussis.shared.ledger import Ledger
    from tussis.shared.queues import Device
    from tussis.shared.s3 import list_objects, s3_client
    from tussis.shared.settings import load_settings
    from tussis.shared.store.repository import Store
    from tussis.shared.uris import parse_s3_prefix
    from tussis.worker.sweep.progress import SweepProgress, read_progress, remove_progress, write_progress
    from tussis.worker.sweep.sweep import Sweep, SweepRequest

    settings = load_settings()
    address = parse_s3_prefix(prefix)
    if profile is not None:
        profile_named(profile)
    url = settings.need_broker()
    request = SweepRequest(
        prefix=address,
        question=_question(settings, model, any_model, profile),
        model=model,
        profile=profile,
        priority=priority,
        device=Device(device),
        max_depth=max_depth,
        retry_failed=retry_failed,
        dry_run=dry_run,
    )
    told = {"prefix": address.uri, "model": model or request.question.sha256, "profile": profile, "retry": retry_failed}
    progress = None if resume is None else read_progress(resume, told)
    s3 = s3_client(settings)
    with (
        Store.connect(settings.need_database()) as store,
        _Report(as_json=as_json, dry_run=dry_run, resume=resume) as report,
    ):
        store.verify_schema()
        _check_model(model, store)
        run = Sweep(
            request,
            lambda start_after: list_objects(s3, address.bucket, address.key, start_after),
            Ledger(connect(url), redact(url)),
            store,
            counts=progress.counts if progress else None,
            on_full=report.full,
        )
        report.counts = run.counts
        for step in run.run(progress.last_key if progress else ""):
            if resume is not None:
                write_progress(resume, SweepProgress(told, step.last_key, run.counts))
            report.add(step)
        if resume is not None:
            remove_progress(resume)
        if not run.counts.listed:
            raise ObjectMissing(f"no object is under {address.uri}: is the prefix right?")
        report.done = True


def _check_model(model: str | None, store: Store) -> None:
    """Raise :class:`click.BadParameter` for a model that no worker has served: every job would fail, for want of it."""
    known = store.known_models() if model is not None else []
    names = {label.partition("@")[0] for label in known} | set(known)
    if model is None or model in names or not known:
        return
    close = difflib.get_close_matches(model, sorted(names), n=1)
    hint = f"did you mean {close[0]!r}?" if close else "start one first, or check the name"
    raise click.BadParameter(f"no worker has served the model {model!r}: {hint}", param_hint="--model")


def _question(settings: Settings, model: str | None, any_model: bool, profile: str | None) -> Question:
    """Which analyses count as answers. Raises :class:`SettingsInvalid` and :class:`ModelRefused`."""
    from tussis.shared.s3 import s3_client
    from tussis.shared.store.known import Question
    from tussis.worker.detector.manifest import read_manifest
    from tussis.worker.detector.source import resolve_model

    if model is not None or any_model:
        return Question(model=model, profile=profile)
    path = resolve_model(settings.need_model(), settings.model_cache_dir, lambda: s3_client(settings))
    manifest = read_manifest(path)
    return Question(sha256=manifest.sha256, profile=profile or manifest.profile)


class _Report:
    """Tells how the sweep gets on, and the summary, also of one that is broken off."""

    def __init__(self, *, as_json: bool, dry_run: bool, resume: Path | None) -> None:
        self._as_json = as_json
        self._dry_run = dry_run
        self._resume = resume
        self._terminal = sys.stderr.isatty()
        self._told_at = time.monotonic()
        self.counts: Counts | None = None
        self.done = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()
        if self.counts is None or not (self.counts.listed or self.counts.stranded):
            return
        if self._as_json:
            click.echo(json.dumps(self._as_object()))
        else:
            click.echo(("" if self.done else "broken off: ") + self._summary(), err=True)
        if not self.done and self._resume is not None:
            click.echo(printable(f"Go on with the same command and --resume {self._resume}."), err=True)

    def add(self, step: SweptPage) -> None:
        """Count and show one step."""
        for error in step.refusals:
            self._clear()
            click.echo(printable(f"tussis: {error}"), err=True)
        if self._dry_run and not self._as_json:
            for uri in step.uris:
                click.echo(printable(uri))
        self._progress(self._summary())

    def full(self, depth: int) -> None:
        """The queue is full: say so."""
        self._progress(f"{self._summary()}; waiting, the queue holds {depth:,}")

    def _progress(self, text: str) -> None:
        now = time.monotonic()
        if now < self._told_at + (_EVERY_S if self._terminal else _EVERY_S_LOGGED):
            return
        self._told_at = now
        click.echo(f"\r\x1b[K{text} ..." if self._terminal else f"{text} ...", err=True, nl=not self._terminal)

    def _clear(self) -> None:
        if self._terminal:
            click.echo("\r\x1b[K", err=True, nl=False)

    def _as_object(self) -> dict[str, Any]:
        assert self.counts is not None
        return self.counts.as_dict() | {"dry_run": self._dry_run, "done": self.done}

    def _summary(self) -> str:
        counts = self.counts
        assert counts is not None
        would = "would be " if self._dry_run else ""
        said = [
            f"{counts.listed:,} listed",
            f"{counts.answered:,} answered",
            f"{counts.open:,} open",
            f"{counts.failed:,} failed",
            f"{counts.discarded:,} discarded",
            f"{counts.enqueued:,} {would}enqueued",
        ]
        if counts.stranded:
            said.append(f"{counts.stranded:,} begun before {would}sent again")
        if counts.refused:
            said.append(f"{counts.refused:,} refused")
        return ", ".join(said)
