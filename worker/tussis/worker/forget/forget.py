"""Forgets recordings: tombstones first, then everything that Tussis keeps of them.

A run that is killed is repeated: the tombstones are there, and every step erases what is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import Engine

from tussis.shared.forgetting import Target, TargetKind
from tussis.shared.ledger import Ledger
from tussis.shared.store import forgotten
from tussis.shared.store.forgotten import Page, Tombstone
from tussis.worker.forget import journal, objects
from tussis.worker.forget.broker import BrokerErasure, rewrite_append_only_file
from tussis.worker.forget.report import Report


@dataclass
class Forget:
    """Forgets the targets. Raises the errors of the store, the broker and the object store.

    ``s3`` is None if the objects stay. ``journal_path`` None: the tombstones are in the database only.
    """

    engine: Engine
    client: redis.Redis
    where: str
    ledger: Ledger
    actor: str
    s3: Any = None
    journal_path: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def preview(self, targets: Sequence[Target]) -> Counter[str]:
        """Place -> number of what :meth:`run` would erase now."""
        meant = [*targets, *self._objects_of_subjects(targets)]
        for target in targets:
            for page in forgotten.pages(self.engine, target):
                self.counts += forgotten.count(self.engine, page)
            self.counts += forgotten.erase_rest(self.engine, target, really=False)
        self.counts += self._broker(lambda named: [any(one.names(each) for one in meant) for each in named]).count()
        if self.s3 is not None:
            for target in _addresses(meant):
                self.counts["versions of objects"] += sum(1 for _ in objects.versions(self.s3, target))
        return +self.counts

    def run(self, targets: Sequence[Target], *, action: str = "forget") -> Report:
        """Forget them."""
        tombstones = self._bury(targets, action)
        found = self._objects_of_subjects(targets)
        # Those that were stored between the search and the tombstone of the person. No others can follow.
        while new := [one for one in self._objects_of_subjects(targets) if one not in self._buried]:
            tombstones += self._bury(new, action)
            found += new
        meant = list(dict.fromkeys([*targets, *found]))
        if self.s3 is not None:
            for target in _addresses(meant):
                self.counts["versions of objects"] += objects.delete(self.s3, objects.versions(self.s3, target))
        for target in meant:
            self._erase(forgotten.pages(self.engine, target), target)
        return self._finish(tombstones, action)

    def preview_old(self, prefix: Target, before: datetime) -> Counter[str]:
        """Place -> number of what :meth:`run_old` would erase in the database and in the object store now."""
        for page in forgotten.pages(self.engine, prefix, before):
            self.counts += forgotten.count(self.engine, page)
            if self.s3 is not None:
                for target in _objects(page):
                    self.counts["versions of objects"] += sum(1 for _ in objects.versions(self.s3, target))
        return +self.counts

    def run_old(self, prefix: Target, before: datetime) -> Report:
        """Forget the objects under the prefix of which no row was changed since then, some hundred at a time.

        Each leaves a tombstone. Otherwise a sweep would enqueue it again, as long as it is in the bucket.
        """
        tombstones: list[Tombstone] = []
        for page in forgotten.pages(self.engine, prefix, before):
            tombstones += self._bury(_objects(page), "forget_old")
            if self.s3 is not None:
                for target in _objects(page):
                    self.counts["versions of objects"] += objects.delete(self.s3, objects.versions(self.s3, target))
            self.counts += forgotten.erase(self.engine, page)
        self.counts["dead_letters"] += forgotten.dead_letters(self.engine, None, really=True)
        return self._finish(tombstones, "forget_old")

    def again(self, action: str = "forget") -> Report:
        """Erase everything that a tombstone names: after a restore, or after a run that was killed."""
        self._erase(forgotten.pages(self.engine, None), None)
        return self._finish([], action)

    def replay(self, path: Path) -> Report:
        """Write the tombstones of a journal, and erase what they name."""
        recorded = journal.read(path)
        for key in recorded.keys:
            forgotten.add_key(self.engine, key)
        tombstones = list(recorded.tombstones.values())
        forgotten.write(self.engine, tombstones, actor=self.actor, action="replay_journal")
        self._erase(forgotten.pages(self.engine, None), None)
        return self._finish(tombstones, "replay_journal")

    def lift(self, targets: Sequence[Target]) -> int:
        """Delete the tombstones of the targets; returns the number of those that there were."""
        tombstones = forgotten.tombstones_of(self.engine, targets)
        lifted = forgotten.lift(self.engine, tombstones, actor=self.actor)
        if self.journal_path is not None:
            journal.append(self.journal_path, [], tombstones, lifted=True)
        return lifted

    # --- the steps ---

    def __post_init__(self) -> None:
        self._buried: set[Target] = set()

    def _bury(self, targets: Sequence[Target], action: str) -> list[Tombstone]:
        """Write the tombstones, in the journal first: a tombstone that only the journal has does no harm."""
        wanted = list(dict.fromkeys([*targets, *self._objects_of_subjects(targets)]))
        tombstones = forgotten.tombstones_of(self.engine, wanted)
        if self.journal_path is not None:
            journal.append(self.journal_path, forgotten.keys(self.engine), tombstones)
        forgotten.write(self.engine, tombstones, actor=self.actor, action=action)
        self._buried.update(wanted)
        return tombstones

    def _objects_of_subjects(self, targets: Sequence[Target]) -> list[Target]:
        """The objects of persons. Their keys need tombstones too: a sweep does not know whose an object is."""
        found: dict[Target, None] = {}
        for target in targets:
            if target.kind is not TargetKind.SUBJECT:
                continue
            for page in forgotten.pages(self.engine, target):
                found |= dict.fromkeys(Target(TargetKind.OBJECT, f"{bucket}/{key}") for bucket, key in page.objects)
            for one in self._broker(lambda named: [False] * len(named)).named(target.names):
                found[Target(TargetKind.OBJECT, str(one.name))] = None
        return list(found)

    def _erase(self, pages: Iterator[Page], target: Target | None) -> None:
        for page in pages:
            self.counts += forgotten.erase(self.engine, page)
        self.counts += forgotten.erase_rest(self.engine, target, really=True)

    def _finish(self, tombstones: Sequence[Tombstone], action: str) -> Report:
        self.counts += self._broker(lambda named: forgotten.which_forgotten(self.engine, named)).erase()
        forgotten.vacuum(self.engine)
        rewritten = rewrite_append_only_file(self.client, self.where)
        counts = dict(sorted((+self.counts).items()))
        digests = [one.digest for one in tombstones]
        at = forgotten.note_end(self.engine, action, self.actor, digests, counts)
        return Report(
            at=at,
            actor=self.actor,
            action=action,
            hashes=[digest.hex() for digest in digests],
            counts=counts,
            append_only_file=rewritten,
            journal=self.journal_path is not None,
            objects_deleted=self.s3 is not None,
        )

    def _broker(self, chosen: Any) -> BrokerErasure:
        return BrokerErasure(self.client, self.where, self.ledger, chosen)


def _objects(page: Page) -> list[Target]:
    return [Target(TargetKind.OBJECT, f"{bucket}/{key}") for bucket, key in page.objects]


def _addresses(targets: Sequence[Target]) -> list[Target]:
    return [target for target in targets if target.kind is not TargetKind.SUBJECT]
