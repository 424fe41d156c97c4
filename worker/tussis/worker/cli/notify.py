"""``tussis notify``: deliver outcomes of jobs by HTTP."""

from __future__ import annotations

import re
import secrets
import signal
import time
from datetime import datetime
from typing import TYPE_CHECKING

import click

from tussis.worker.cli import notify_outbox
from tussis.worker.cli.moments import check_span, moment

if TYPE_CHECKING:
    import ssl

    from tussis.shared.settings import Settings
    from tussis.worker.notify.addresses import Network
    from tussis.worker.notify.notifier import Notifier, NotifyOptions
    from tussis.worker.notify.signing import Signer

DEFAULT_NAME = "webhook"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Callback of --name: the name is a part of keys of the broker."""
    if _NAME.fullmatch(value) is None:
        raise click.BadParameter("use 1 to 64 letters, digits, dots, hyphens and underscores")
    return value


def _networks(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Network, ...]:
    from tussis.worker.notify.addresses import parse_networks

    try:
        return parse_networks(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}: write a network such as 10.1.0.0/16") from None


@click.group(invoke_without_command=True)
@click.option(
    "--url", metavar="URL", help="URL to which outcomes are delivered, https://...  [default: TUSSIS_WEBHOOK_URL]"
)
@click.option(
    "--name",
    metavar="NAME",
    default=DEFAULT_NAME,
    show_default=True,
    callback=check_name,
    help="Name of this notifier. The broker keeps its position and its webhooks under it.",
)
@click.option(
    "--allow-network",
    "allowed",
    metavar="CIDR",
    multiple=True,
    callback=_networks,
    help="Allow requests to this network too, also with http://. Repeatable.  [default: public addresses]",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    metavar="N",
    help="Largest number of requests at the same time.",
)
@click.option(
    "--timeout",
    "answer_s",
    type=click.FloatRange(1, 60),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time until the receiver has answered.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    metavar="PORT",
    help="Serve Prometheus metrics on this port; 0: any free port.  [default: TUSSIS_METRICS_PORT]",
)
@click.option("--replay", is_flag=True, help="Let the notifier deliver outcomes since --since again, and exit.")
@click.option(
    "--since",
    callback=moment,
    metavar="TIME",
    help="With --replay, the time from which jobs ended: 2026-11-22, 2026-11-22T14:30 (UTC), or 2h, 7d ago.",
)
@click.pass_context
def notify(
    ctx: click.Context,
    url: str | None,
    name: str,
    allowed: tuple[Network, ...],
    connections: int,
    answer_s: float,
    metrics_port: int | None,
    replay: bool,
    since: datetime | None,
) -> None:
    """Deliver the outcome of every job by HTTP POST (webhooks).

    The requests are signed as Standard Webhooks defines it, with the secrets in TUSSIS_WEBHOOK_SECRET or in the file
    TUSSIS_WEBHOOK_SECRET_FILE. Each outcome is delivered at least once, and those of one recording in their order. A
    delivery that fails is tried again for a day. Then it is given up, and `tussis notify list` shows it.

    The command runs until SIGTERM or Ctrl-C. Several with one --name stand by for each other. It needs the broker. With
    TUSSIS_DATABASE_URL it also delivers outcomes that the broker no longer keeps.

    \b
    Examples:
      tussis notify --url https://example.org/hooks/tussis
      tussis notify --url http://10.1.2.3:8080/hook --allow-network 10.1.0.0/16
      tussis notify --replay --since 2h
      tussis notify list
      tussis notify redeliver --all

    docs/webhooks.md describes the requests and how to verify a signature.
    """
    if ctx.invoked_subcommand is not None:
        given = [param for param in ctx.params if ctx.get_parameter_source(param) is _COMMAND_LINE]
        if given:
            raise click.UsageError("Write the options after the subcommand.")
        return
    if replay != (since is not None):
        raise click.UsageError("--replay and --since belong together.")
    from tussis.shared.settings import load_settings

    settings = load_settings(webhook_url=url, metrics_port=metrics_port)
    if since is not None:
        _replay(settings, name, since)
        return
    _run(settings, name, allowed, connections, answer_s)


_COMMAND_LINE = click.core.ParameterSource.COMMANDLINE


def _run(settings: Settings, name: str, allowed: tuple[Network, ...], connections: int, answer_s: float) -> None:
    import ssl

    from tussis.shared.errors import SettingsInvalid
    from tussis.shared.hidden_keys import hider_of
    from tussis.worker import logs
    from tussis.worker.notify.addresses import AddressPolicy
    from tussis.worker.notify.endpoint import parse_endpoint
    from tussis.worker.notify.notifier import NotifyOptions
    from tussis.worker.notify.sender import TimeLimits
    from tussis.worker.notify.signing import signer_of

    if settings.webhook_url is None:
        raise SettingsInvalid("no URL is given: use --url https://host/path, or set TUSSIS_WEBHOOK_URL")
    options = NotifyOptions(
        name=name,
        endpoint=parse_endpoint(settings.webhook_url),
        policy=AddressPolicy(allowed),
        limits=TimeLimits(answer_s=answer_s),
        connections=connections,
    )
    signer = signer_of(settings)
    tls = ssl.create_default_context() if options.endpoint.encrypted else None
    logs.configure(settings.log_format, settings.log_level, hider_of(settings))
    _serve(settings, options, signer, tls)


def _serve(settings: Settings, options: NotifyOptions, signer: Signer, tls: ssl.SSLContext | None) -> None:
    from contextlib import ExitStack

    from tussis.shared.broker import connect, redact
    from tussis.shared.store.repository import Store
    from tussis.worker.notify.counts import DeliveryCounts, MetricsServer
    from tussis.worker.notify.notifier import Notifier

    url = settings.need_broker()
    client, where = connect(url), redact(url)
    counts = DeliveryCounts()
    with ExitStack() as stack:
        stack.callback(client.close)
        outbox = notify_outbox.outbox_of(settings, options.name)
        store = None
        if settings.database_url is not None:
            store = stack.enter_context(Store.connect(settings.database_url))
        notifier = Notifier(options, signer, client, where, outbox, store, tls, counts)
        if settings.metrics_port is not None:
            served = MetricsServer(
                settings.metrics_host, settings.metrics_port, counts, outbox, lambda: notifier.is_working
            )
            stack.callback(served.close)
        _stop_on_signals(notifier)
        notifier.run()


def _stop_on_signals(notifier: Notifier) -> None:
    """Stop at the first signal. A second one ends the process at once: no webhook is lost."""

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        notifier.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _replay(settings: Settings, name: str, since: datetime) -> None:
    """Ask the notifier to deliver outcomes again. It reads them from the database, in pages."""
    from tussis.shared.errors import SettingsInvalid
    from tussis.worker.notify.intake import WANTED, ReplaySpan
    from tussis.worker.notify.notifier import DATABASE

    check_span(since, None)
    outbox = notify_outbox.outbox_of(settings, name)
    if not outbox.state().get(DATABASE):
        raise SettingsInvalid(
            f"the notifier {name} has no access to the database: start it with TUSSIS_DATABASE_URL, then repeat this"
        )
    outbox.set_state(**{f"{WANTED}{secrets.token_hex(8)}": ReplaySpan(since.timestamp(), time.time()).to_json()})
    click.echo(f"the notifier {name} delivers the outcomes since {since:%Y-%m-%dT%H:%M:%S} UTC again")


for _command in notify_outbox.commands(check_name, DEFAULT_NAME):
    notify.add_command(_command)
