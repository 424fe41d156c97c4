"""``tussis sweep``: enqueue the objects that have neither a result nor an open job."""

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
    from tussis.shared.store.known import AnalysisCriteria
    from tussis.shared.store.repository import Store
    from tussis.worker.sweep.sweep import SweepCounts, SweptPage

#: Seconds between two lines of progress: on a terminal, and elsewhere.
_EVERY_S, _EVERY_S_LOGGED = 0.2, 60.0


@click.command()
@click.argument("prefix", metavar="S3_URI")
@click.option("--dry-run", is_flag=True, help="Print the URIs that would be enqueued, and enqueue nothing.")
@click.option(
    "--resume",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Save the progress in FILE. An interrupted sweep continues from there. The file is removed at the end.",
)
@click.option(
    "--max-depth",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="Wait while at least this number of messages is in the queues or in flight.",
)
@click.option("--retry-failed", is_flag=True, help="Also enqueue failures, except discarded ones.")
@click.option("--retry-cancelled", is_flag=True, help="Also enqueue objects whose jobs were cancelled.")
@click.option(
    "--model",
    metavar="NAME[@VERSION]",
    help="Count only results of this model, and request it for the jobs.  [default: count those of TUSSIS_MODEL]",
)
@click.option("--any-model", is_flag=True, help="Count the results of every model.")
@click.option("--profile", metavar="NAME", help="Preprocessing profile.  [default: the model's]")
@click.option("--coverage", type=click.Choice(["head", "full"]), help="Coverage.  [default: the model's]")
@click.option(
    "--priority",
    type=click.IntRange(0, 9),
    default=9,
    show_default=True,
    help="Priority of the jobs. Workers take 0 first and 9 last.",
)
@click.option(
    "--device",
    type=click.Choice(["any", "cpu", "gpu"]),
    default="any",
    show_default=True,
    help="Kind of worker that takes the jobs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print only the summary, as one JSON object.")
def sweep(
    prefix: str,
    dry_run: bool,
    resume: Path | None,
    max_depth: int,
    retry_failed: bool,
    retry_cancelled: bool,
    model: str | None,
    any_model: bool,
    profile: str | None,
    coverage: str | None,
    priority: int,
    device: str,
    as_json: bool,
) -> None:
    """Enqueue the objects under s3://bucket/prefix that have neither a result nor an open job.

    Use it for objects that were never enqueued, after the broker lost its data, and for a new model. You can repeat it
    at any time: objects with a result or an open job are not enqueued again.

    A result counts only if it is from the model in TUSSIS_MODEL. Set TUSSIS_MODEL as for the workers, or use --model or
    --any-model. Failures are enqueued only with --retry-failed, or if the cause may be gone (a missing object), and
    objects whose jobs were cancelled only with --retry-cancelled. Discarded failures, and objects whose analysis
    `tussis retain` deleted, are never enqueued. A recording that no worker has received is enqueued without the
    metadata and the priority from upstream.

    The exit status is 0 if the whole prefix was swept.

    \b
    Examples:
      tussis sweep s3://clinic/2026/ --dry-run
      tussis sweep s3://clinic --resume /var/lib/tussis/clinic.sweep --max-depth 20000
    """
    if any_model and model:
        raise click.UsageError("Give --model or --any-model, not both.")
    if dry_run and resume:
        raise click.UsageError("--dry-run saves no progress: omit --resume.")
    from tussis.shared.broker import connect, redact
    from tussis.shared.coverage import Coverage
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
        criteria=_criteria(settings, model, any_model, profile, coverage),
        model=model,
        profile=profile,
        coverage=None if coverage is None else Coverage(coverage),
        priority=priority,
        device=Device(device),
        max_depth=max_depth,
        retry_failed=retry_failed,
        retry_cancelled=retry_cancelled,
        dry_run=dry_run,
    )
    identity = {
        "prefix": address.uri,
        "model": model or request.criteria.sha256,
        "profile": profile,
        "retry": retry_failed,
    }
    # A file from before there was a choice stays valid.
    if retry_cancelled:
        identity["retry_cancelled"] = True
    if coverage is not None:
        identity["coverage"] = coverage
    progress = None if resume is None else read_progress(resume, identity)
    s3 = s3_client(settings)
    with (
        Store.connect(settings.need_database()) as store,
        _SweepOutput(as_json=as_json, dry_run=dry_run, resume=resume) as output,
    ):
        store.verify_schema()
        _check_model(model, store)
        run = Sweep(
            request,
            lambda start_after: list_objects(s3, address.bucket, address.key, start_after),
            Ledger(connect(url), redact(url)),
            store,
            counts=progress.counts if progress else None,
            on_full=output.show_waiting,
        )
        output.counts = run.counts
        for step in run.run(progress.last_key if progress else ""):
            if resume is not None:
                write_progress(resume, SweepProgress(identity, step.last_key, run.counts))
            output.show_step(step)
        if resume is not None:
            remove_progress(resume)
        if not run.counts.listed:
            raise ObjectMissing(f"no object is under {address.uri}: check the prefix")
        output.done = True


def _check_model(model: str | None, store: Store) -> None:
    """Raise :class:`click.BadParameter` for a model that no worker has served: every job would fail."""
    known = store.known_models() if model is not None else []
    names = {label.partition("@")[0] for label in known} | set(known)
    if model is None or model in names or not known:
        return
    close = difflib.get_close_matches(model, sorted(names), n=1)
    hint = f"did you mean {close[0]!r}?" if close else "start a worker with it, or check the name"
    raise click.BadParameter(f"no worker has served the model {model!r}: {hint}", param_hint="--model")


def _criteria(
    settings: Settings, model: str | None, any_model: bool, profile: str | None, coverage: str | None
) -> AnalysisCriteria:
    """Which analyses count as answers. Raises :class:`SettingsInvalid` and :class:`ModelRefused`."""
    from tussis.shared.s3 import models_s3
    from tussis.shared.store.known import AnalysisCriteria
    from tussis.worker.detector.manifest import read_manifest
    from tussis.worker.detector.source import resolve_model

    if model is not None or any_model:
        return AnalysisCriteria(model=model, profile=profile, coverage=coverage)
    path = resolve_model(settings.need_model(), settings.model_cache_dir, lambda: models_s3(settings))
    manifest = read_manifest(path)
    return AnalysisCriteria(
        sha256=manifest.sha256, profile=profile or manifest.profile, coverage=coverage or manifest.coverage
    )


class _SweepOutput:
    """Prints the progress of a sweep, and the summary, also if the sweep is interrupted."""

    def __init__(self, *, as_json: bool, dry_run: bool, resume: Path | None) -> None:
        self._as_json = as_json
        self._dry_run = dry_run
        self._resume = resume
        self._terminal = sys.stderr.isatty()
        self._printed_at = time.monotonic()
        self.counts: SweepCounts | None = None
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
            click.echo(("" if self.done else "interrupted: ") + self._summary(), err=True)
        if not self.done and self._resume is not None:
            click.echo(printable(f"Continue with the same command and --resume {self._resume}."), err=True)

    def show_step(self, step: SweptPage) -> None:
        """Print the refused objects and the progress after one step."""
        for error in step.refusals:
            self._clear()
            click.echo(printable(f"tussis: {error}"), err=True)
        if self._dry_run and not self._as_json:
            for uri in step.uris:
                click.echo(printable(uri))
        self._progress(self._summary())

    def show_waiting(self, depth: int) -> None:
        """Print that the sweep waits because the queues are full."""
        self._progress(f"{self._summary()}; waiting, the queues hold {depth:,} messages")

    def _progress(self, text: str) -> None:
        now = time.monotonic()
        if now < self._printed_at + (_EVERY_S if self._terminal else _EVERY_S_LOGGED):
            return
        self._printed_at = now
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
        parts = [
            f"{counts.listed:,} listed",
            f"{counts.answered:,} answered",
            f"{counts.open:,} open",
            f"{counts.failed:,} failed",
            f"{counts.discarded:,} discarded",
            f"{counts.enqueued:,} {would}enqueued",
        ]
        if counts.deleted:
            parts.append(f"{counts.deleted:,} deleted by retention")
        if counts.cancelled:
            parts.append(f"{counts.cancelled:,} cancelled")
        if counts.forgotten:
            parts.append(f"{counts.forgotten:,} forgotten")
        if counts.stranded:
            parts.append(f"{counts.stranded:,} unfinished {would}sent again")
        if counts.refused:
            parts.append(f"{counts.refused:,} refused")
        return ", ".join(parts)
