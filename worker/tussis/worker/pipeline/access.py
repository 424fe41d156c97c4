"""Whether an operator's error concerns one recording or all of them. A worker pauses only for the latter.

A bucket with its own policy, a key whose signature a gateway miscalculates, or a disabled encryption key looks like a
wrong deployment, but one message can cause it. Such an error is deferred like a transient error until there is proof.
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

#: Number of distinct recordings refused in a row that is proof if no recording was fetched before.
DENIED_IN_A_ROW: Final = 20
#: Errors that one recording may cause. Every other operator's error (of database, model, device) concerns all
#: recordings.
_DOUBTFUL: Final = (StorageAccessDenied, StorageCredentials, SettingsInvalid, NotInstalled)


@dataclass
class Access:
    """The recordings that the object store granted and refused to this process."""

    last: Job | None = None
    """The job whose recording was fetched last. In case of doubt its object is requested again."""
    refused: set[str] = field(default_factory=set)
    """The recordings refused since then, at most :data:`DENIED_IN_A_ROW`."""

    def granted(self, job: Job) -> None:
        """Record that a recording was fetched."""
        self.last = job
        self.refused.clear()

    def concerns_all(self, job: Job, error: TussisError, s3: Any) -> bool:
        """Whether ``error`` is an operator's error that concerns all recordings. May send a request to the store."""
        if not isinstance(error, OperatorError):
            return False
        if not isinstance(error, _DOUBTFUL):
            return True
        if isinstance(error, NotInstalled):
            return job.profile is None  # a job with its own profile may need another program
        if len(self.refused) < DENIED_IN_A_ROW:
            self.refused.add(job.uri)
        many = len(self.refused) >= DENIED_IN_A_ROW
        # An account that may read recordings may lack the right to list buckets: a denial is then no proof.
        if not many and isinstance(error, StorageAccessDenied):
            return False
        if self.last is None:
            return many or self._refuses(lambda: s3.list_buckets(), type(error))
        last = self.last
        return self._refuses(lambda: head_object(s3, last.bucket, last.key, last.version_id), type(error))

    @staticmethod
    def _refuses(ask: Any, kind: type[TussisError]) -> bool:
        """Whether a request for something else gets the same error."""
        try:
            with storage_errors("s3://"):
                ask()
        except TussisError as error:
            return isinstance(error, kind)
        return False
