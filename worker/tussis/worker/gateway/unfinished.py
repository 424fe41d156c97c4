"""Aborts unfinished multipart uploads under the prefix of the uploads: a killed gateway leaves them, and they cost."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Final

from tussis.shared.errors import TussisError
from tussis.shared.s3 import storage_errors
from tussis.shared.uris import ObjectAddress
from tussis.worker import logs
from tussis.worker.gateway.services import Services

_log = logs.get("gateway")

#: Seconds after which an upload is unfinished. No upload of the gateway takes as long.
UNFINISHED_S: Final = 86_400.0
#: Seconds between two looks.
_LOOK_S: Final = 3600.0


class UnfinishedUploads:
    """Looks at the start and every hour, in a thread, until :meth:`close`."""

    def __init__(self, services: Services, prefix: ObjectAddress) -> None:
        self._services = services
        self._prefix = prefix
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tussis-unfinished", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while True:
            try:
                abort_unfinished(self._services, self._prefix, UNFINISHED_S)
            except TussisError as error:
                _log.warning("uploads_not_checked", error_class=error.error_class, reason=str(error))
            if self._closing.wait(_LOOK_S):
                return


def abort_unfinished(services: Services, prefix: ObjectAddress, older_s: float) -> int:
    """Abort the uploads under the prefix that began more than ``older_s`` seconds ago; returns their number.

    Raises the errors of :func:`tussis.shared.s3.storage_errors`.
    """
    s3 = services.s3.client()
    before = datetime.now(UTC) - timedelta(seconds=older_s)
    aborted = 0
    with storage_errors(prefix.uri, s3):
        pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=prefix.bucket, Prefix=prefix.key)
        for found in [upload for page in pages for upload in page.get("Uploads", ())]:
            if found["Initiated"] < before:
                s3.abort_multipart_upload(Bucket=prefix.bucket, Key=found["Key"], UploadId=found["UploadId"])
                _log.warning("upload_aborted", uri=ObjectAddress(prefix.bucket, found["Key"]).uri)
                aborted += 1
    return aborted
