"""Where the database is: ``TUSSIS_DATABASE_URL``, read by libpq's own parser: it means what it means to psql."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from tussis.shared.errors import SettingsInvalid

_EXAMPLE = "write postgresql://user:password@host:port/database"
#: libpq knows two schemes; SQLAlchemy's third one names a driver as well.
_SCHEME = re.compile(r"(postgres(?:ql)?)(?:\+\w+)?://")
_UNKNOWN_OPTION = re.compile(r'invalid (?:URI query parameter|connection option):? "(\w+)"')
_PORTS = re.compile(r"(?:\d+|)(?:,(?:\d+|))*")


@dataclass(frozen=True)
class Address:
    """A connection string in parts. ``parameters`` are libpq's, the password among them."""

    parameters: Mapping[str, str]
    hosts: str
    """``host:port`` of each host, with commas between them; ``local socket FOLDER:port``; or ``service NAME``."""
    database: str
    """Its name; empty where only the service file has it."""


def parse_address(url: str) -> Address:
    """Read a connection string: a URL or ``key=value`` pairs, with every option that libpq has.

    Raises :class:`SettingsInvalid` when libpq does not understand it. The message never quotes the string: libpq's own
    words may hold a part of the password.
    """
    text = _SCHEME.sub(r"\1://", url, count=1) if _SCHEME.match(url) else url
    try:
        given = {key: str(value) for key, value in conninfo_to_dict(text).items()}
    except (psycopg.Error, UnicodeError) as error:
        unknown = _UNKNOWN_OPTION.search(str(error))
        if unknown is not None:
            raise SettingsInvalid(f"TUSSIS_DATABASE_URL has an option that libpq does not know: {unknown[1]}") from None
        raise SettingsInvalid(f"TUSSIS_DATABASE_URL is not a PostgreSQL URL: {_EXAMPLE}") from None
    if not given:
        raise SettingsInvalid(f"TUSSIS_DATABASE_URL is not a PostgreSQL URL: {_EXAMPLE}")
    if not re.fullmatch(r"-?\d+", given.get("connect_timeout", "0")):
        raise SettingsInvalid("TUSSIS_DATABASE_URL is wrong: its connect_timeout is no number of seconds")
    if not _PORTS.fullmatch(given.get("port", "")) or ("user" not in given and "@" in given.get("dbname", "")):
        # A slash in the password ends the host for libpq; what follows would be shown as the database's name.
        raise SettingsInvalid(
            f"TUSSIS_DATABASE_URL is not a PostgreSQL URL: {_EXAMPLE}, with %2F for a slash in the password"
        )
    return _address(given)


def _address(given: dict[str, str]) -> Address:
    # What the URL leaves out comes from PGHOST, PGPORT and their kin.
    defaults = {
        option.keyword.decode(): option.val.decode() for option in Conninfo.get_defaults() if option.val is not None
    }
    known = defaults | given
    if "service" in known and "host" not in known:
        return Address(given, f"service {known['service']}", known.get("dbname", ""))
    hosts = (known.get("host") or known.get("hostaddr") or "").split(",")
    ports = (known.get("port") or "5432").split(",")
    # One port is every host's.
    ports = ports * len(hosts) if len(ports) == 1 else ports
    # libpq refuses other numbers of ports at the connection; they are shown as they are.
    pairs = [f"{_shown(host)}:{port or 5432}" for host, port in zip(hosts, ports, strict=False)]
    return Address(given, ",".join(pairs), known.get("dbname") or known.get("user") or "")


def _shown(host: str) -> str:
    if not host or host.startswith(("/", "@")):
        return f"local socket {host}".rstrip()
    return f"[{host}]" if ":" in host else host
