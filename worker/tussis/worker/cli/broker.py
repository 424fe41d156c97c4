"""``tussis broker``: prepare the broker."""

from __future__ import annotations

import click


@click.group()
def broker() -> None:
    """Prepare the broker."""


@broker.command()
def load() -> None:
    """Load the functions of Tussis into the broker in TUSSIS_BROKER_URL.

    Every step of Tussis on the broker is one of them. Run it before the first producer, with a login that may load
    functions. Workers also do it at their start, and again when the broker has lost its data. A newer version of the
    functions stays.
    """
    from tussis.shared.broker import broker_errors, connect, redact
    from tussis.shared.broker_functions import VERSION, load, loaded_version
    from tussis.shared.errors import BrokerRefused
    from tussis.shared.settings import load_settings

    url = load_settings().need_broker()
    client = connect(url)
    try:
        with broker_errors(redact(url)):
            before = loaded_version(client)
            loaded = load(client)
            after = loaded_version(client)
    finally:
        client.close()
    if after is not None and after < VERSION:
        raise BrokerRefused(
            f"the broker at {redact(url)} denies FUNCTION LOAD, and has version {after} of the functions, not "
            f"{VERSION}: use a login with the right +function|load"
        )
    click.echo(f"{before or 'none'} -> {after}" if loaded else f"{after}: nothing to do")
