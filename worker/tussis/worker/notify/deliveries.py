"""Threads that deliver the webhooks of the outbox, and store what became of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tussis.shared.errors import TransientError, WebhookEndpointGone
from tussis.worker import logs
from tussis.worker.notify import schedule
from tussis.worker.notify.counts import DeliveryCounts
from tussis.worker.notify.endpoint import Endpoint
from tussis.worker.notify.lanes import Lanes, WaitingWebhook
from tussis.worker.notify.outbox import Outbox
from tussis.worker.notify.sender import NotDelivered, ReceiverAnswer, Sender
from tussis.worker.notify.signing import Signer
from tussis.worker.notify.webhook import Webhook

_log = logs.get("notify")

#: Field of the state: the receiver answered 410 (Gone).
GONE: Final = "gone"
_OK, _GONE, _TOO_MANY = range(200, 300), 410, 429
_REDIRECTS: Final = range(300, 400)


class Deliveries:
    """Delivers until :meth:`stop`, or until an error, which is in :attr:`error`.

    ``may_deliver``: whether this process still holds the lease.
    """

    def __init__(
        self,
        outbox: Outbox,
        lanes: Lanes,
        signer: Signer,
        make_sender: Callable[[], Sender],
        counts: DeliveryCounts,
        may_deliver: Callable[[], bool],
        endpoint: Endpoint,
    ) -> None:
        self._outbox = outbox
        self._lanes = lanes
        self._signer = signer
        self._make_sender = make_sender
        self._counts = counts
        self._may_deliver = may_deliver
        self._endpoint = endpoint
        self._threads: list[threading.Thread] = []
        self.error: Exception | None = None
        """The error that ended the deliveries: of the broker, or :class:`WebhookEndpointGone`."""

    def start(self, connections: int) -> None:
        """Start so many threads."""
        for number in range(connections):
            thread = threading.Thread(target=self._run, name=f"deliver-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout_s: float) -> None:
        """Start no more deliveries, and wait for those that run."""
        self._lanes.close()
        ends = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _run(self) -> None:
        sender = self._make_sender()
        try:
            while (waiting := self._lanes.take()) is not None and self._may_deliver():
                try:
                    self._deliver(waiting, sender)
                except (TransientError, WebhookEndpointGone):
                    raise
                except Exception:
                    _log.exception("internal_fault")
                    self._lanes.again(waiting, time.time() + schedule.LONGEST_DELAY_S)
        except (TransientError, WebhookEndpointGone) as error:
            self.error = error
        finally:
            self._lanes.close()
            sender.close()

    def _deliver(self, waiting: WaitingWebhook, sender: Sender) -> None:
        webhook = self._outbox.get(waiting.webhook_id)
        if webhook is None:
            self._lanes.done(waiting)
            return
        body = webhook.body.encode("utf-8", "replace")
        headers = {"Content-Type": "application/json", "User-Agent": "Tussis"}
        began, at = time.monotonic(), time.time()
        answer: ReceiverAnswer | None = None
        try:
            answer = sender.post(body, headers | self._signer.headers(webhook.webhook_id, int(at), body))
            reason = _reason(answer)
        except NotDelivered as error:
            reason = str(error)
        seconds = time.monotonic() - began
        ok = answer is not None and answer.status in _OK
        self._counts.attempt(seconds, ok=ok)
        if ok:
            self._outbox.delivered(webhook.webhook_id)
            self._lanes.done(waiting)
            _log.info(
                "webhook_delivered",
                webhook_id=webhook.webhook_id,
                uri=webhook.recording,
                attempts=webhook.attempts + 1,
                ms=round(seconds * 1000),
            )
            return
        if answer is not None and answer.status == _GONE:
            self._outbox.set_state(**{GONE: self._endpoint.fingerprint})
            raise WebhookEndpointGone(gone_text(self._endpoint.where))
        self._failed(waiting, webhook, at, reason, answer)

    def _failed(
        self, waiting: WaitingWebhook, webhook: Webhook, at: float, reason: str, answer: ReceiverAnswer | None
    ) -> None:
        """Store a failed attempt: the webhook is tried again, or given up."""
        first_at = at if webhook.first_at is None else webhook.first_at
        tried = replace(webhook, attempts=webhook.attempts + 1, first_at=first_at, reason=reason)
        fields = {
            "webhook_id": webhook.webhook_id, "uri": webhook.recording, "attempts": tried.attempts, "reason": reason
        }  # fmt: skip
        now = time.time()
        if schedule.is_over(first_at, now):
            left = self._outbox.give_up(tried)
            self._counts.gave_up()
            self._lanes.done(waiting)
            _log.error("webhook_given_up", **fields)
            if left:
                _log.error("undelivered_dropped", webhooks=left)
            return
        asked_s = None if answer is None else answer.retry_after_s
        delay_s = schedule.delay_s(tried.attempts, asked_s)
        self._outbox.update(replace(tried, due_at=now + delay_s))
        if answer is not None and answer.status == _TOO_MANY and asked_s:
            self._lanes.pause(now + min(asked_s, schedule.LONGEST_PAUSE_S))
        self._lanes.again(waiting, now + delay_s)
        _log.warning("webhook_failed", retry_s=round(delay_s, 1), **fields)


def gone_text(endpoint: str) -> str:
    """What an operator has to do after 410."""
    return (
        f"the receiver at {endpoint} answered 410 (Gone): it wants no more webhooks, so nothing is sent to this URL; "
        "change the URL, or run `tussis notify reopen` to send again"
    )


def _reason(answer: ReceiverAnswer) -> str:
    if answer.status in _REDIRECTS:
        return f"status {answer.status}: a redirect, which is not followed; give the URL to which it leads"
    return f"status {answer.status}"
