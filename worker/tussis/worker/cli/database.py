"""``tussis database``: logins of the database."""

from __future__ import annotations

import sys

import click


@click.group()
def database() -> None:
    """Make logins of the database."""


@database.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["worker", "analyst", "analyst_full"]),
    required=True,
    help="The rights of the login (docs/security.md).",
)
def login(name: str, role: str) -> None:
    """Make the login NAME with the rights of a role, or give an existing one this role and a new password.

    The password is the first line of standard input. The login in TUSSIS_DATABASE_URL must have the right to create
    roles. Run `tussis migrate` before.

    \b
    Example:
      tussis database login tussis_worker_1 --role worker <password-file
    """
    from tussis.shared.settings import load_settings
    from tussis.shared.store.migrate import make_login
    from tussis.shared.store.rights import Role

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if len(password) < 8:
        raise click.UsageError("the password has fewer than 8 characters: write it to standard input")
    if name in tuple(Role):
        raise click.UsageError(f"{name} is a role: choose another name for the login")
    make_login(load_settings().need_database(), name, Role(f"tussis_{role}"), password)
    click.echo(f"{name}\t{role}")
