"""Revision 0010: the view ``drift_by_week`` and the index on the time at which a recording was made."""

from __future__ import annotations

from tests.migration.test_views_migration import seen
from tests.support.store import execute, rows
from tussis.shared.store import migrate


def test_up_and_down_change_the_view_and_the_index_only(database_url: str) -> None:
    migrate.upgrade(database_url, "0010")
    execute(database_url, "INSERT INTO recordings (bucket, key, etag) VALUES ('b', 'k', 'e')")
    views, columns, indexes = seen(database_url)

    migrate.downgrade(database_url, "-1")

    before = seen(database_url)
    assert before == [
        [row for row in views if row[0] != "drift_by_week"],
        [row for row in columns if row[0] != "drift_by_week"],
        [row for row in indexes if row[0] != "recordings_made_at_idx"],
    ]
    assert (len(views) - len(before[0]), len(indexes) - len(before[2])) == (1, 1)
    migrate.upgrade(database_url, "0010")
    assert seen(database_url) == [views, columns, indexes]
    assert rows(database_url, "SELECT key FROM recordings") == [("k",)]
