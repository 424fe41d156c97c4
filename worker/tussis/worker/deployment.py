"""What a worker looks at before it loads anything large: a deployment that is wrong says so at once.

torch and Celery take seconds to import, many of them on a busy machine; none of this needs them.
"""

from __future__ import annotations

from tussis.shared.broker import broker_errors, connect, redact
from tussis.shared.settings import Settings
from tussis.shared.store.repository import Store


def check_deployment(settings: Settings) -> None:
    """Ask for the settings that a worker needs, the broker, the database and its schema.

    Raises :class:`SettingsInvalid`, :class:`BrokerUnavailable`, :class:`BrokerRefused`, :class:`DatabaseUnavailable`,
    :class:`DatabaseRefused`, :class:`SchemaMismatch`.
    """
    settings.need_model()
    url = settings.need_broker()
    with broker_errors(redact(url)):
        connect(url).ping()
    store = Store.connect(settings.need_database(), pool_size=1)
    try:
        store.verify_schema()
    finally:
        store.close()
