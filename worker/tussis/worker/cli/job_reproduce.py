"""``tussis job ID --reproduce``: repeat the analysis of a job and compare it with the stored one."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tussis.shared.text import printable

if TYPE_CHECKING:
    from pathlib import Path

    from tussis.shared.settings import Settings
    from tussis.shared.store.records import JobAnswer
    from tussis.worker.reproduction.comparison import Comparison
    from tussis.worker.reproduction.verdict import Verdict


def reproduce(answer: JobAnswer, model: str | None, settings: Settings, *, as_json: bool) -> bool:
    """Repeat the analysis, print the comparison, and return whether the two agree within the tolerances.

    Raises :class:`NotReproducible`, and the errors of the model and of the object store.
    """
    from tussis.shared.errors import PermanentError
    from tussis.shared.s3 import models_s3, s3_client
    from tussis.worker import logs
    from tussis.worker.reproduction.comparison import compare
    from tussis.worker.reproduction.model import find_model
    from tussis.worker.reproduction.repeat import check_repeatable, repeat
    from tussis.worker.reproduction.verdict import Agreement, verdict, verdict_of_failure

    logs.configure("console", "warning")
    analysis = answer.analysis
    check_repeatable(analysis)
    found: list[Path] = []

    def model_path() -> Path:
        found.append(find_model(analysis, model, settings, lambda: models_s3(settings)))
        return found[-1]

    here = repeat(analysis, model_path, settings, lambda: s3_client(settings))
    comparison = None
    if analysis.decision is None or isinstance(here, PermanentError):
        said = verdict_of_failure(analysis, here)
    else:
        comparison = compare(analysis, answer.segments, here)
        said = verdict(comparison)
    software = None if isinstance(here, PermanentError) or here.software is None else asdict(here.software)
    report: dict[str, Any] = {
        "job_id": answer.job_id,
        "uri": analysis.uri,
        "etag": analysis.etag,
        "version_id": analysis.version_id,
        "analysis_id": analysis.id,
        "model": analysis.model,
        "model_sha256": analysis.model_sha256,
        "model_path": str(found[-1]) if found else None,
        "profile": analysis.profile,
        "coverage": analysis.coverage,
        "agreement": said.agreement.value,
        "verdict": said.line,
        "software": {"row": None if analysis.software is None else asdict(analysis.software), "here": software},
    }
    if isinstance(here, PermanentError):
        report["error"] = {"row": analysis.error_class, "here": here.error_class, "message": str(here)}
    elif analysis.error_class is not None:
        report["error"] = {"row": analysis.error_class, "here": None, "message": None}
    report |= _numbers(comparison)
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print(report, comparison, said)
    return said.agreement is not Agreement.DIFFERENT


def _numbers(comparison: Comparison | None) -> dict[str, Any]:
    if comparison is None:
        return {}
    return {
        "values": {pair.name: {"row": pair.row, "here": pair.here} for pair in comparison.values},
        "differences": [{"name": pair.name, "row": pair.row, "here": pair.here} for pair in comparison.differences],
        "largest_difference": {"name": comparison.largest.name, "value": comparison.largest_difference},
        "segments": None
        if comparison.segments_deleted
        else [{"row": pair.row, "here": pair.here} for pair in comparison.segments],
    }


def _print(report: dict[str, Any], comparison: Comparison | None, said: Verdict) -> None:
    from tussis.worker.reproduction.verdict import shown

    for name in ("uri", "etag", "version_id", "model", "model_path", "profile", "coverage"):
        if report[name]:
            click.echo(printable(f"{name:<20}  {report[name]}"))
    rows = [] if comparison is None else [(pair.name, pair.row, pair.here) for pair in comparison.values]
    if comparison is not None and comparison.segments and comparison.largest.name != "bag_probability":
        worst = comparison.largest
        rows.append((worst.name, worst.row, worst.here))
    used, here = report["software"]["row"] or {}, report["software"]["here"] or {}
    rows += [(name, used.get(name), here.get(name)) for name in (here or used)]
    texts = [(name, shown(row), shown(value)) for name, row, value in rows]
    if texts:
        first, second = (max(len(row[place]) for row in texts) for place in (0, 1))
        click.echo(printable(f"{'':<{first}}  {'row':<{second}}  here"))
        for name, row, value in texts:
            click.echo(printable(f"{name:<{first}}  {row:<{second}}  {value}").rstrip())
    click.echo(printable(said.line))
