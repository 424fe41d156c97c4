"""A worker uses its own settings, whatever is set for another Celery application of the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.deployment import READY_S, Deployment
from tests.support.sounds import wav
from tussis.worker.parent.environment import NAMES

#: Each variable breaks or misconfigures a worker of stock Celery.
WRONG = {
    "CELERY_BROKER_URL": "amqp://nobody@127.0.0.1:1//",
    "CELERY_BROKER_READ_URL": "redis://127.0.0.1:1/0",
    "CELERY_BROKER_WRITE_URL": "redis://127.0.0.1:1/0",
    "CELERY_RESULT_BACKEND": "nonsense://",
    "CELERY_LOADER": "nonsense",
    "CELERY_CONFIG_MODULE": "nonsense",
    "CELERY_CUSTOM_WORKER_POOL": "nonsense",
    "CELERY_LOG_LEVEL": "xx",
    "CELERY_LOG_FILE": "/nonsense/%i",
    "CELERY_LOG_REDIRECT": "1",
    "CELERY_RDBSIG": "1",
    "CELERY_TRACE_APP": "1",
    "CELERY_WORKER_REVOKES_MAX": "xx",
    "CELERY_BENCH": "1",
    "KOMBU_LOG_DEBUG": "1",
    "KOMBU_LOG_CONNECTION": "1",
    "KOMBU_DEBUG_POOL": "1",
    "KOMBU_DISABLE_LIMIT_PROTECTION": "1",
    "REMAP_SIGTERM": "SIGQUIT",
    "DJANGO_SETTINGS_MODULE": "nonsense",
    "TERM": "nonsense",
    "ITERM_PROFILE": "nonsense",
    "NUMBER_OF_PROCESSORS": "xx",
} | dict.fromkeys(sorted(NAMES - {"REMAP_SIGTERM"}), "xx")


@pytest.mark.scenario(29)
def test_variables_of_another_celery_application_have_no_effect(deployment: Deployment, tmp_path: Path) -> None:
    read = tmp_path / "read"
    (tmp_path / "celeryconfig.py").write_text(f"open({str(read)!r}, 'w')\nbroker_url = 'amqp://127.0.0.1:1'\n")
    worker = deployment.spawn(
        *("worker", "cpu", "--concurrency", "1"), environment=deployment.environment | WRONG, cwd=tmp_path
    )
    told = worker.wait_for_event("environment_ignored", READY_S)
    worker.wait_for_event("worker_ready", READY_S)
    deployment.enqueue("a.wav", wav(0.5))
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert set(told["names"]) == {name for name in WRONG if name.startswith(("CELERY_", "KOMBU_")) or name in NAMES}
    assert not read.exists()
    assert not [line for line in [*worker.stdout, *worker.stderr] if not line.startswith("{")]
