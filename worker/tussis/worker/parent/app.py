"""The Celery application of a worker: every option that the guarantees depend on, with its reason."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

from tussis.shared.queues import (
    PRIORITIES,
    PRIORITY_SEPARATOR,
    TASK_NAME,
    UNACKED_INDEX_KEY,
    UNACKED_KEY,
    Device,
    ServedModel,
    worker_queues,
)
from tussis.shared.settings import Settings
from tussis.worker.parent import transport
from tussis.worker.parent.request import ChildEnds, request_class
from tussis.worker.pipeline.child import OUT_OF_REACH_KIB

#: Seconds between two searches for messages whose visibility timeout is over.
RESTORE_INTERVAL_S = 5


def build_app(
    settings: Settings, device: Device, ends: ChildEnds | None = None, serves: ServedModel | None = None
) -> Celery:
    """Configure Celery for a worker on ``device`` that serves the model ``serves``. This opens no connection.

    ``ends`` has the callbacks for children that end during an attempt. Raises :class:`SettingsInvalid` when the broker
    is not set. The measurements behind the options are in ``docs/guarantees.md``.
    """
    transport.install()
    # No fixups: if the environment has DJANGO_SETTINGS_MODULE, Celery would load that Django project.
    queues = worker_queues(device, serves)
    app = Celery("tussis", broker=settings.need_broker(), set_as_current=False, fixups=[])
    app.conf.update(
        # Not declared: otherwise kombu keeps a table of bindings in the broker, which Tussis never reads.
        task_queues=[Queue(name, exchange="", routing_key=name, no_declare=True) for name in queues],
        task_create_missing_queues=False,
        # The message stays in the broker until its result is stored. It returns to its queue when the child dies.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        # Wait without limit for a broker that is not available.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_transport_options=_transport_options(settings),
        # Loading a model takes longer than the 4 s after which Celery considers a new process dead.
        worker_proc_alive_timeout=120.0,
        # KiB. No process reaches it: only a child that ran out of memory ends after its task (child.end_after_task).
        worker_max_memory_per_child=OUT_OF_REACH_KIB,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        # With remote control, anyone with write access to the broker could stop the worker or make it drop a recording.
        worker_enable_remote_control=False,
        enable_utc=True,
    )
    from tussis.worker.pipeline.tasks import analyze

    app.task(
        analyze,
        name=TASK_NAME,
        # Otherwise Celery adds the task to every other app of the process.
        shared=False,
        bind=False,
        acks_late=True,
        reject_on_worker_lost=True,
        ignore_result=True,
        Request=request_class(ends or ChildEnds()),
    )
    return app


def _transport_options(settings: Settings) -> dict[str, Any]:
    return {
        "visibility_timeout": settings.visibility_timeout_s,
        "unacked_restore_interval": RESTORE_INTERVAL_S,
        "unacked_restore_throttle": 1,
        "unacked_key": UNACKED_KEY,
        "unacked_index_key": UNACKED_INDEX_KEY,
        # A half-open connection is detected within seconds.
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 5,
        "priority_steps": list(PRIORITIES),
        "sep": PRIORITY_SEPARATOR,
        "queue_order_strategy": "priority",
    }
