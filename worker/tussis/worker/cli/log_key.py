"""``tussis log-key``: the hash of a key in the logs."""

from __future__ import annotations

import click


@click.command("log-key")
@click.argument("uris", nargs=-1, required=True, metavar="S3_URI...")
def log_key(uris: tuple[str, ...]) -> None:
    """Print how the logs name these objects with TUSSIS_LOG_KEYS=hash: s3://bucket/#hash.

    It needs TUSSIS_LOG_SECRET, the same as the workers have.
    """
    from tussis.shared.hidden_keys import hider_of
    from tussis.shared.settings import load_settings
    from tussis.shared.uris import parse_s3_uri

    hider = hider_of(load_settings(log_keys="hash"))
    assert hider is not None
    for uri in uris:
        click.echo(hider.uri(parse_s3_uri(uri).uri))
