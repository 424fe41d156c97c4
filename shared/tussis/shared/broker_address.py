"""The broker's URL with every option of TLS in it.

Two libraries read the URL: redis-py, and kombu for the consumer. They have different defaults: with ``rediss://`` and
no options, kombu does not verify the server. Therefore the URL that Tussis passes on names every option.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from tussis.shared.errors import SettingsInvalid

#: ``CERT_*`` are kombu's names. For a client, OpenSSL makes no difference between optional and required.
_VERIFICATION: Final = {
    "none": "none",
    "cert_none": "none",
    "optional": "required",
    "cert_optional": "required",
    "required": "required",
    "cert_required": "required",
}
#: As in redis-py.
_FALSE: Final = ("0", "f", "false", "n", "no")


def broker_address(
    url: str, *, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> str:
    """The URL with all options of TLS. A URL that is not ``rediss://`` is returned unchanged.

    The server is verified, its name too, unless the URL has ``ssl_cert_reqs=none`` or ``ssl_check_hostname=false``. An
    option in the URL takes precedence over the arguments, which are ``TUSSIS_BROKER_CA``, ``_CERT`` and ``_KEY``.

    Raises :class:`SettingsInvalid` for arguments without ``rediss://``, and for an option that is wrong or repeated.
    """
    files = {
        "ssl_ca_certs": ("TUSSIS_BROKER_CA", ca),
        "ssl_certfile": ("TUSSIS_BROKER_CERT", certificate),
        "ssl_keyfile": ("TUSSIS_BROKER_KEY", key),
    }
    try:
        parts = urlsplit(url)
    except ValueError:  # connecting to it raises the error with the setting's name
        return url
    if parts.scheme != "rediss":
        for setting, path in files.values():
            if path is not None:
                raise SettingsInvalid(
                    f"{setting} is set, and TUSSIS_BROKER_URL does not start with rediss://: write rediss:// to use TLS"
                )
        return url
    if parts.fragment:
        raise SettingsInvalid("TUSSIS_BROKER_URL has a # in it: write %23")
    options: dict[str, str] = {}
    for name, value in parse_qsl(parts.query):
        # Of a repeated option, redis-py takes the first and kombu the last.
        if name in options:
            raise SettingsInvalid(f"TUSSIS_BROKER_URL has the option {name} twice: write it once")
        options[name] = value
    for option, (_, path) in files.items():
        if path is not None:
            options.setdefault(option, str(path))
    wanted = options.get("ssl_cert_reqs", "required")
    if wanted.lower() not in _VERIFICATION:
        raise SettingsInvalid(f"TUSSIS_BROKER_URL has ssl_cert_reqs={wanted}: write required or none")
    options["ssl_cert_reqs"] = _VERIFICATION[wanted.lower()]
    named = options.get("ssl_check_hostname", "true").lower() not in _FALSE
    options["ssl_check_hostname"] = "true" if named else "false"
    return parts._replace(query=urlencode(options, quote_via=quote)).geturl()


def verified(url: str) -> bool:
    """Whether the server behind a URL of :func:`broker_address` is verified. True for a URL without TLS."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    off = options.get("ssl_cert_reqs") == "none" or options.get("ssl_check_hostname") == "false"
    return parts.scheme != "rediss" or not off
