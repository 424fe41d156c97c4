"""``tussis analyze``: recordings at hand, without queue and store."""

from __future__ import annotations

import json
from typing import Any

import click

from tussis.shared.text import printable, probability


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE_OR_URI...")
@click.option("--model", help="Path or s3:// URI of an ONNX file [TUSSIS_MODEL, else the one shipped].")
@click.option("--profile", help="The preprocessing profile [the model's manifest].")
@click.option(
    "--tuned",
    is_flag=True,
    help="Run the model as a CPU worker does; the first time, this takes some seconds [the original graph].",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def analyze(
    ctx: click.Context,
    sources: tuple[str, ...],
    model: str | None,
    profile: str | None,
    tuned: bool,
    as_json: bool,
) -> None:
    """Say of each recording whether there is a cough, and where.

    Takes files and s3:// URIs. Needs no broker and no database. The exit status is 1 when any of them failed; the
    others are analysed all the same.

    \b
    Examples:
      tussis analyze cough.mp3 --model models/cough.onnx
      tussis analyze *.wav s3://clinic/2026/a.webm --json
    """
    from tussis.shared.errors import OperatorError, StorageAccessDenied, TussisError
    from tussis.shared.s3 import s3_client
    from tussis.shared.settings import load_settings
    from tussis.worker import logs
    from tussis.worker.detector.shipped import default_model
    from tussis.worker.detector.source import resolve_model
    from tussis.worker.detector.tuning.choice import decide, open_chosen
    from tussis.worker.pipeline.analysis import Analyzer

    settings = load_settings(model=model)
    shipped = default_model() if settings.model is None else None
    path = shipped or resolve_model(settings.need_model(), settings.model_cache_dir, lambda: s3_client(settings))
    threads, choice = settings.concurrency, None
    if tuned:
        logs.configure("console", "warning")
        choice = decide(path, intra_op_threads=threads, cache_dir=settings.model_cache_dir)
    detector = open_chosen(path, choice, intra_op_threads=threads, cache_dir=settings.model_cache_dir)
    analyzer = Analyzer.of(detector, profile, settings, lambda: s3_client(settings))
    failed = False
    for source in sources:
        try:
            told = analyzer.analyze(source)
        except TussisError as error:
            # One object may be closed to us; anything else of the operator's stands in the way of all of them.
            if isinstance(error, OperatorError) and not isinstance(error, StorageAccessDenied):
                raise
            failed = True
            told = {"uri": source, "error": {"class": error.error_class, "message": str(error)}}
        click.echo(json.dumps(told) if as_json else _line(told), err=not as_json and "error" in told)
    ctx.exit(1 if failed else 0)


def _line(told: dict[str, Any]) -> str:
    if "error" in told:
        return printable(f"tussis: {told['uri']}: {told['error']['class']}: {told['error']['message']}")
    answer = "COUGH   " if told["decision"] else "no cough"
    best = max(told["segments"], key=lambda segment: segment["probability"])
    cut = f", {told['analyzed_s']:.1f} s of them analysed" if told["truncated"] else ""
    return (
        f"{answer}  {probability(told['bag_probability'], told['threshold']):>6}  {printable(told['uri'])}"
        f"  ({told['duration_s']:.1f} s{cut}; highest segment {best['start_s']:.1f} to {best['end_s']:.1f} s: "
        f"{probability(best['probability'])})"
    )
