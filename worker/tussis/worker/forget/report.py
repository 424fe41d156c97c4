"""The report of a run: evidence of what was erased, and of what remains elsewhere. It has no key and no person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

#: What Tussis cannot erase.
_REMAINS: Final = (
    "PostgreSQL: write-ahead log, its archive, replicas that lag, and backups, until they expire; after a restore of a "
    "backup, run `tussis forget --replay` with the journal",
    "broker: its replicas, its snapshots (dump.rdb) and backups of its files, until they are written again",
    "logs of workers, producers, PostgreSQL and the object store, until they expire",
    "the run directory and the status of a worker that waits for this recording, until it goes on",
    "what upstream systems, webhook receivers, exports and reports have received",
)
_OBJECTS: Final = "the objects in the object store with their versions: --delete-objects deletes them"
_COPIES: Final = "replicas and backups of the bucket, and parts of unfinished uploads"


@dataclass(frozen=True)
class Report:
    """What a run erased, by place. ``hashes`` are those of the tombstones, as in the audit trail."""

    at: datetime
    actor: str
    action: str
    hashes: Sequence[str]
    counts: Mapping[str, int]
    append_only_file: str
    journal: bool
    objects_deleted: bool

    @property
    def remains(self) -> list[str]:
        """What remains elsewhere, one sentence each."""
        return [*_REMAINS, _COPIES if self.objects_deleted else _OBJECTS]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return {"v": 1, **asdict(self), "at": self.at.isoformat(timespec="seconds"), "remains": self.remains}

    def lines(self) -> list[str]:
        """The report as text."""
        found = [f"{self.action} at {self.at:%Y-%m-%d %H:%M:%S} UTC by {self.actor}"]
        found += [f"tombstone {value}" for value in self.hashes]
        found += counted(self.counts, "erased")
        found.append(f"append-only file of the broker: {self.append_only_file}")
        found.append("journal: " + ("written" if self.journal else "none; set TUSSIS_FORGET_JOURNAL"))
        return [*found, "What remains:", *(f"  {sentence}" for sentence in self.remains)]


def counted(counts: Mapping[str, int], verb: str) -> list[str]:
    """The counts by place as text."""
    return [f"{verb} {number:,} {place.replace('_', ' ')}" for place, number in counts.items()] or [f"{verb} nothing"]
