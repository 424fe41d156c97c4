"""``tussis analyze``: analyse files and objects directly, without broker and database."""

from __future__ import annotations

import json
from typing import Any

import click

from tussis.shared.text import printable, probability


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE_OR_URI...")
@click.option(
    "--model", help="Path or s3:// URI of an ONNX file.  [default: TUSSIS_MODEL, otherwise the shipped model]"
)
@click.option("--profile", help="Preprocessing profile.  [default: the profile in the model's manifest]")
@click.option(
    "--coverage",
    type=click.Choice(["head", "full"]),
    help="head: the first 17.5 s; full: the whole recording.  [default: the coverage in the model's manifest]",
)
@click.option(
    "--tuned",
    is_flag=True,
    help="Use the graph that a CPU worker chooses. The choice takes some seconds once.  [default: the original graph]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.pass_context
def analyze(
    ctx: click.Context,
    sources: tuple[str, ...],
    model: str | None,
    profile: str | None,
    coverage: str | None,
    tuned: bool,
    as_json: bool,
) -> None:
    """Analyse recordings directly and print the results.

    Takes files and s3:// URIs. Needs no broker and no database. Use it to try a model, or to examine single recordings.

    A recording that fails does not stop the others. The exit status is 1 if any recording failed.

    \b
    Examples:
      tussis analyze cough.mp3 --model models/cough.onnx
      tussis analyze *.wav s3://clinic/2026/a.webm --json
    """
    from tussis.shared.errors import OperatorError, StorageAccessDenied, TussisError
    from tussis.shared.s3 import models_s3, s3_client
    from tussis.shared.settings import load_settings
    from tussis.worker import logs
    from tussis.worker.detector.shipped import default_model
    from tussis.worker.detector.source import resolve_model
    from tussis.worker.detector.tuning.choice import decide, open_chosen
    from tussis.worker.pipeline.analysis import Analyzer

    settings = load_settings(model=model)
    shipped = default_model() if settings.model is None else None
    path = shipped or resolve_model(settings.need_model(), settings.model_cache_dir, lambda: models_s3(settings))
    threads, choice = settings.concurrency, None
    if tuned:
        logs.configure("console", "warning")
        choice = decide(path, intra_op_threads=threads, cache_dir=settings.model_cache_dir)
    detector = open_chosen(path, choice, intra_op_threads=threads, cache_dir=settings.model_cache_dir)
    analyzer = Analyzer.of(detector, profile, coverage, settings, lambda: s3_client(settings))
    failed = False
    for source in sources:
        try:
            result = analyzer.analyze(source)
        except TussisError as error:
            # Access may be denied to one object only. Every other operator's error concerns all recordings.
            if isinstance(error, OperatorError) and not isinstance(error, StorageAccessDenied):
                raise
            failed = True
            result = {"uri": source, "error": {"class": error.error_class, "message": str(error)}}
        click.echo(json.dumps(result) if as_json else _line(result), err=not as_json and "error" in result)
    ctx.exit(1 if failed else 0)


def _line(result: dict[str, Any]) -> str:
    if "error" in result:
        return printable(f"tussis: {result['uri']}: {result['error']['class']}: {result['error']['message']}")
    answer = "COUGH   " if result["decision"] else "no cough"
    best = max(result["segments"], key=lambda segment: segment["probability"])
    cut = f", first {result['analyzed_s']:.1f} s analysed" if result["truncated"] else ""
    return (
        f"{answer}  {probability(result['bag_probability'], result['threshold']):>6}  {printable(result['uri'])}"
        f"  ({result['duration_s']:.1f} s{cut}; highest segment {best['start_s']:.1f} to {best['end_s']:.1f} s: "
        f"{probability(best['probability'])})"
    )
