"""The HTML report of an audit: one file that loads nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from tussis.worker.audit import sentences, tables
from tussis.worker.audit.findings import Findings
from tussis.worker.audit.tables import Listing
from tussis.worker.report import plots
from tussis.worker.report.html import details, page, paragraph, section, table, text
from tussis.worker.report.words import counted, moment

#: Recordings in the table; ``--json`` has all.
ROWS: Final = 200
#: Columns of a histogram of shifts from 0 to 1.
BINS: Final = 20


def audit_page(findings: Findings, made_at: datetime, version: str) -> str:
    """The whole report as HTML."""
    audit = findings.audit
    own = audit.plan.own.name
    shown = min(ROWS, len(audit.recordings))
    parts = [
        f"<header>\n<h1>Audit of {text(audit.plan.detector.manifest.label)}</h1>\n"
        + paragraph(sentences.subject(audit))
        + _limits(findings)
        + "\n</header>",
        section(
            "Profiles",
            *(paragraph(sentences.decisions(one, own)) for one in findings.summaries),
            _table(tables.profiles(findings.summaries)),
            *(_histogram(findings, one.profile) for one in findings.summaries),
        )
        if findings.summaries
        else "",
        section("Factors", paragraph(sentences.attribution(audit)), _table(tables.factors(findings.summaries)))
        if findings.summaries
        else "",
        section(
            "Labels", *map(paragraph, sentences.labels(findings.labelled)), _table(tables.labels(findings.labelled))
        )
        if findings.labelled is not None
        else "",
        section(
            "The other system",
            *map(paragraph, sentences.against(findings.against, audit)),
            _table(tables.candidates(findings.against)),
        )
        if findings.against is not None
        else "",
        section(
            "Worst recordings",
            paragraph(
                f"{shown:,} of {counted(len(audit.recordings), 'recording')}, each with the profile that shifts it "
                "most. A column of a factor has the shift of that factor alone. The output of --json has all.",
                "soft",
            ),
            _table(tables.worst(audit, ROWS, with_factors=True)),
        )
        if findings.summaries and audit.recordings
        else "",
        section("Failures", _table(tables.failures(audit))) if audit.failures else "",
        f"<footer>{paragraph(_colophon(made_at, version))}</footer>",
    ]
    return page(f"Tussis: audit of {audit.plan.detector.manifest.label}", "\n".join(part for part in parts if part))


def _limits(findings: Findings) -> str:
    if not findings.exceeded:
        return ""
    items = "".join(f"<li>{text(line)}</li>" for line in findings.exceeded)
    return f'\n<div class="warn" role="note"><p>Limits exceeded:</p><ul>{items}</ul></div>'


def _histogram(findings: Findings, profile: str) -> str:
    counts = [[0, 0] for _ in range(BINS)]
    for one in findings.audit.recordings:
        shift = one.shift(profile)
        if shift is not None:
            index = min(int(abs(shift) * BINS), BINS - 1)
            counts[index][one.flips(profile, findings.audit.threshold)] += 1
    total = sum(map(sum, counts))
    if not total:
        return ""
    rows = [
        (f"{index / BINS:.2f} to {(index + 1) / BINS:.2f}", kept, flipped)
        for index, (kept, flipped) in enumerate(counts)
        if kept or flipped
    ]
    return plots.figure(
        "bars",
        f"Histogram of {counted(total, 'shift')} under {profile}. The table has them.",
        plots.stacks([[(flipped, "fill-cough"), (kept, "fill-no-cough")] for kept, flipped in counts]),
        f"{profile}: absolute shift of the bag probability. Recordings whose decision flips are red.",
        below=plots.share_axis(),
    ) + details(
        f"Shifts under {profile} as a table", table("Histogram", ("shift", "same decision", "flips"), rows, (1, 2))
    )


def _table(listing: Listing) -> str:
    return table(listing.caption, listing.headings, listing.rows, listing.numbers)


def _colophon(made_at: datetime, version: str) -> str:
    return f"Made by Tussis {version} at {moment(made_at)}. This file loads nothing from a network."
