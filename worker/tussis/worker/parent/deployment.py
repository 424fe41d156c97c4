"""Checks before a worker loads anything large, so that errors of the deployment are reported at once.

torch and Celery take seconds to import, and much longer on a busy machine. These checks need neither.
"""

from __future__ import annotations

from pathlib import Path

from tussis.shared.broker import broker_errors, connect, redact
from tussis.shared.broker_checks import check_worker_rights
from tussis.shared.settings import Settings
from tussis.shared.store.repository import Store
from tussis.worker.detector.manifest import check_sha256, read_manifest, read_model


def check_deployment(settings: Settings) -> None:
    """Check the settings that a worker needs, the manifest of a local model, the broker, the database and its schema.

    Raises :class:`SettingsInvalid`, :class:`ModelRefused`, :class:`BrokerUnavailable`, :class:`BrokerRefused`,
    :class:`DatabaseUnavailable`, :class:`DatabaseRefused`, :class:`SchemaMismatch`.
    """
    model = settings.need_model()
    if "://" not in model:
        path = Path(model)
        check_sha256(read_model(path), read_manifest(path), model)
    url = settings.need_broker()
    with broker_errors(redact(url)):
        check_worker_rights(connect(url))
    store = Store.connect(settings.need_database(), pool_size=1, direct=settings.database_direct)
    try:
        store.verify_schema()
    finally:
        store.close()
