"""Whether an operator's error concerns one recording or all of them: a worker pauses for all, and never for one.

A bucket with a policy of its own, a key whose signature a gateway miscalculates, an encryption key that is switched
off: each looks like a deployment that is set up wrongly, and one message can cause it. Such an error is deferred like
a fault that passes until there is proof.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from tussis.shared.errors import (
    NotInstalled,
    OperatorError,
    SettingsInvalid,
    StorageAccessDenied,
    StorageCredentials,
    TussisError,
)
from tussis.shared.messages import Job
from tussis.shared.s3 import head_object, storage_errors

#: Distinct recordings refused in a row that are proof where no recording was fetched before.
DENIED_IN_A_ROW: Final = 20
#: Errors that one recording may cause. Every other operator's error (the database's, the model's, the device's) is met
#: by all recordings alike.
_DOUBTFUL: Final = (StorageAccessDenied, StorageCredentials, SettingsInvalid, NotInstalled)


@dataclass
class Access:
    """What this process was granted and refused by the object store."""

    last: Job | None = None
    """The job whose recording was fetched last: its object is asked for again in case of doubt."""
    refused: set[str] = field(default_factory=set)
    """The recordings refused since then; no more than are proof."""

    def granted(self, job: Job) -> None:
        """Note that a recording was fetched."""
        self.last = job
        self.refused.clear()

    def concerns_all(self, job: Job, error: TussisError, s3: Any) -> bool:
        """Whether ``error`` is the operator's and every other recording meets it too. May ask the store."""
        if not isinstance(error, OperatorError):
            return False
        if not isinstance(error, _DOUBTFUL):
            return True
        if isinstance(error, NotInstalled):
            return job.profile is None  # another profile than the model's needs another program
        if len(self.refused) < DENIED_IN_A_ROW:
            self.refused.add(job.uri)
        many = len(self.refused) >= DENIED_IN_A_ROW
        # Whoever may read one recording may not list buckets: for a lack of rights that question is no proof.
        if not many and isinstance(error, StorageAccessDenied):
            return False
        if self.last is None:
            return many or self._refuses(lambda: s3.list_buckets(), type(error))
        last = self.last
        return self._refuses(lambda: head_object(s3, last.bucket, last.key, last.version_id), type(error))

    @staticmethod
    def _refuses(ask: Any, kind: type[TussisError]) -> bool:
        """Whether a question about something else meets the same error."""
        try:
            with storage_errors("s3://"):
                ask()
        except TussisError as error:
            return isinstance(error, kind)
        return False
