"""The finished bags of a long analysis that has no result yet. The result deletes them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select, text

from tussis.shared.states import AnalysisState
from tussis.shared.store.records import BagProgress, Claimed
from tussis.shared.store.tables.answers import bag_progress

_SAVE: Final = text(
    f"""
    INSERT INTO bag_progress (analysis_id, bags_total, bags_done, scores)
    SELECT id, :bags_total, :bags_done, :scores
    FROM analyses
    WHERE id = :analysis_id AND attempt_token = :token AND state = '{AnalysisState.RUNNING.value}'
    ON CONFLICT (analysis_id) DO UPDATE SET
        bags_total = excluded.bags_total,
        bags_done = excluded.bags_done,
        scores = excluded.scores,
        updated_at = now()
    """
)


def save(connection: Connection, claimed: Claimed, progress: BagProgress) -> bool:
    """Save the finished bags. False: the claim is not held, and nothing was saved."""
    saved = connection.execute(
        _SAVE,
        {
            "analysis_id": claimed.analysis_id,
            "token": claimed.token,
            "bags_total": progress.bags_total,
            "bags_done": progress.bags_done,
            "scores": progress.scores,
        },
    )
    return saved.rowcount == 1


def find(connection: Connection, analysis_id: int) -> BagProgress | None:
    """The finished bags of an analysis; None if none were saved."""
    row = connection.execute(
        select(bag_progress.c.bags_total, bag_progress.c.bags_done, bag_progress.c.scores).where(
            bag_progress.c.analysis_id == analysis_id
        )
    ).one_or_none()
    return None if row is None else BagProgress(row.bags_total, row.bags_done, bytes(row.scores))
