"""The address of the database, from ``TUSSIS_DATABASE_URL``. libpq parses it, so psql reads it in the same way."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from tussis.shared.errors import SettingsInvalid

_EXAMPLE = "write postgresql://user:password@host:port/database"
#: libpq accepts two schemes. A URL of SQLAlchemy also names a driver in the scheme.
_SCHEME = re.compile(r"(postgres(?:ql)?)(?:\+\w+)?://")
_UNKNOWN_OPTION = re.compile(r'invalid (?:URI query parameter|connection option):? "(\w+)"')
_PORTS = re.compile(r"(?:\d+|)(?:,(?:\d+|))*")


@dataclass(frozen=True)
class Address:
    """A connection string in parts. ``parameters`` are libpq's and include the password."""

    parameters: Mapping[str, str]
    hosts: str
    """``host:port`` of each host, separated by commas; ``local socket FOLDER:port``; or ``service NAME``."""
    database: str
    """Name of the database; empty if only the service file has it."""


def parse_address(url: str) -> Address:
    """Parse a connection string: a URL or ``key=value`` pairs, with every option of libpq.

    Raises :class:`SettingsInvalid` when libpq cannot parse it. The message never quotes the string or the message of
    libpq, because both can contain a part of the password.
    """
    text = _SCHEME.sub(r"\1://", url, count=1) if _SCHEME.match(url) else url
    try:
        given = {key: str(value) for key, value in conninfo_to_dict(text).items()}
    except (psycopg.Error, UnicodeError) as error:
        unknown = _UNKNOWN_OPTION.search(str(error))
        known = [option.keyword.decode() for option in Conninfo.get_defaults()]
        # A name that resembles no option may be a part of the password.
        if unknown is not None and difflib.get_close_matches(unknown[1], known, cutoff=0.8):
            raise SettingsInvalid(f"TUSSIS_DATABASE_URL has an option that libpq does not know: {unknown[1]}") from None
        raise SettingsInvalid(f"TUSSIS_DATABASE_URL is not a PostgreSQL URL: {_EXAMPLE}") from None
    if not given:
        raise SettingsInvalid(f"TUSSIS_DATABASE_URL is not a PostgreSQL URL: {_EXAMPLE}")
    if not re.fullmatch(r"-?\d+", given.get("connect_timeout", "0")):
        raise SettingsInvalid("TUSSIS_DATABASE_URL is wrong: its connect_timeout is not a number of seconds")
    if not _PORTS.fullmatch(given.get("port", "")) or ("user" not in given and "@" in given.get("dbname", "")):
        # libpq ends the host at a slash in the password. The rest would be shown as the name of the database.
        raise SettingsInvalid(
            f"TUSSIS_DATABASE_URL is not a PostgreSQL URL: {_EXAMPLE}, with %2F for a slash in the password"
        )
    return _address(given)


def _address(given: dict[str, str]) -> Address:
    # Defaults come from PGHOST, PGPORT and the other environment variables of libpq.
    defaults = {
        option.keyword.decode(): option.val.decode() for option in Conninfo.get_defaults() if option.val is not None
    }
    known = defaults | given
    if "service" in known and "host" not in known:
        return Address(given, f"service {known['service']}", known.get("dbname", ""))
    hosts = (known.get("host") or known.get("hostaddr") or "").split(",")
    ports = (known.get("port") or "5432").split(",")
    # A single port applies to every host.
    ports = ports * len(hosts) if len(ports) == 1 else ports
    # If the number of ports differs, libpq rejects it when it connects. Here the pairs are only shown.
    pairs = [f"{_shown(host)}:{port or 5432}" for host, port in zip(hosts, ports, strict=False)]
    return Address(given, ",".join(pairs), known.get("dbname") or known.get("user") or "")


def _shown(host: str) -> str:
    if not host or host.startswith(("/", "@")):
        return f"local socket {host}".rstrip()
    return f"[{host}]" if ":" in host else host
