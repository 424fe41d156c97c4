"""``tussis trail``: who did what to the deployment."""

from __future__ import annotations

import json
from datetime import datetime

import click

from tussis.shared.text import printable
from tussis.worker.cli.moments import moment


@click.command()
@click.option("--since", callback=moment, metavar="TIME", help="Since 2026-11-22, 2026-11-22T14:30 (UTC), or 7d ago.")
@click.option("--of", "uri", metavar="S3_URI", help="Only on this recording.")
@click.option("--prefix", metavar="S3_URI", help="Only on this prefix, as it was given to the command.")
@click.option("--subject", metavar="ID", help="Only on this person.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def trail(since: datetime | None, uri: str | None, prefix: str | None, subject: str | None, as_json: bool) -> None:
    """Print the audit trail, the oldest row first: time, action, who, login to the database, hashes, details.

    Recordings, prefixes and persons are hashes. --of, --prefix and --subject find the rows of one that you know. It
    needs the rights of the owner of the tables.
    """
    from tussis.shared.forgetting import object_target, prefix_target, subject_target
    from tussis.shared.settings import load_settings
    from tussis.shared.store.connection import connect_engine, place
    from tussis.shared.store.faults import database_errors
    from tussis.shared.store.repository import Store
    from tussis.shared.store.trail import deeds

    given = [
        make(value)
        for make, value in ((object_target, uri), (prefix_target, prefix), (subject_target, subject))
        if value is not None
    ]
    if len(given) > 1:
        raise click.UsageError("Give only one of --of, --prefix and --subject.")
    engine = connect_engine(load_settings().need_database())
    with Store(engine) as store, database_errors(place(engine.url)):
        store.verify_schema()
        for deed in deeds(engine, since, given[0] if given else None):
            if as_json:
                click.echo(json.dumps({**vars(deed), "at": deed.at.isoformat(), "targets": list(deed.targets)}))
            else:
                targets = " ".join(one[:16] for one in deed.targets[:3]) + (" ..." if len(deed.targets) > 3 else "")
                fields = (f"{deed.at:%Y-%m-%d %H:%M:%S}", deed.action, deed.actor, deed.login, targets)
                click.echo("\t".join(map(printable, (*fields, json.dumps(deed.details)))))
