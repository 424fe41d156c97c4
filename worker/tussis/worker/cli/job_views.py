"""The report of ``tussis job`` about one job, as text."""

from __future__ import annotations

from typing import Any

import click

from tussis.shared.text import printable, probability

#: Length of a segment, seconds.
SEGMENT_S = 2.0


def print_report(report: dict[str, Any]) -> None:
    """Print a report as text, one line for each fact."""
    segments = report.pop("segments", [])
    error = report.pop("error", None)
    if "bag_probability" in report:
        report["bag_probability"] = probability(report["bag_probability"], report["threshold"])
    width = max(len(name) for name in report)
    for name, value in report.items():
        if value is not None and value != []:
            click.echo(f"{name:<{width}}  {_shown(name, value)}")
    if error is not None:
        click.echo(printable(f"{'error':<{width}}  {error['class']}: {error['message']}"))
    if segments is None:
        click.echo(f"{'segments':<{width}}  deleted by `tussis retain`")
    for number, segment in enumerate(segments or ()):
        end_s = segment.get("end_s", segment["start_s"] + SEGMENT_S)  # an outcome does not have it
        click.echo(
            f"  segment {number:>2}  {segment['start_s']:>5.1f} to {end_s:>5.1f} s"
            f"  probability {probability(segment['probability'])}"
        )


def _shown(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "software" and isinstance(value, dict):
        return printable(
            f"Tussis {value['tussis_version']}, onnxruntime {value['onnxruntime_version']}, torch "
            f"{value['torch_version']}, torchaudio {value['torchaudio_version']}, {value['decoder_library']}; "
            f"{value['provider']}, {value['graph']} graph, {value['processor'] or 'processor unknown'}"
        )
    if isinstance(value, dict):  # the progress
        return f"{value['bags_done']} of {value['bags_total']} bags"
    if isinstance(value, list):  # the warnings
        return ", ".join(value)
    if isinstance(value, float) and name.endswith("_dbfs"):
        return f"{value:.1f}"
    if isinstance(value, float) and name in ("clipped_share", "dc_offset"):
        return f"{value:.4f}"
    # Seconds to the millisecond; a threshold as it is, since the answer depends on each of its digits.
    return (
        str(round(value, 3))
        if isinstance(value, float) and name.endswith(("_s", "_seconds"))
        else printable(str(value))
    )
