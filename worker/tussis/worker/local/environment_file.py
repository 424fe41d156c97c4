"""The file that a second terminal sources to use the servers of ``tussis demo`` or ``tussis up``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tussis.worker.embedded.servers import Endpoints
from tussis.worker.local.surroundings import tussis_command, write_whole

_NAME: Final = "environment"
#: Beside it: the login of the owner of the database, for the commands that no other login may run.
_OWNER_NAME: Final = "environment-owner"


def environment_file(data: Path) -> Path:
    """Where the file is, in the data folder."""
    return data / _NAME


def write_environment(data: Path, endpoints: Endpoints, model: Path, run_dir: Path) -> Mapping[str, str]:
    """Write the file; return the variables that it sets for Tussis, boto3 and the AWS command line.

    The ``tussis`` command of this installation comes first in ``PATH``. Raises :class:`NotInstalled`,
    :class:`DiskFull` and :class:`OutputUnwritable`.
    """
    variables = {
        **endpoints.environment(),
        # The AWS command line and boto3 read the address of the store from this variable.
        "AWS_ENDPOINT_URL_S3": endpoints.s3_endpoint_url,
        # `tussis sweep` and `tussis analyze` use the workers' model.
        "TUSSIS_MODEL": str(model),
        "TUSSIS_RUN_DIR": str(run_dir),
    }
    binaries = Path(tussis_command()).absolute().parent
    lines = [f"{line}\n" for line in export_lines(variables)]
    lines.append(f'export PATH={shlex.quote(str(binaries))}:"$PATH"\n')
    write_whole(environment_file(data), "".join(lines).encode(), mode=0o600)
    return variables


def export_lines(variables: Mapping[str, str]) -> list[str]:
    """One ``export`` command for each variable."""
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def write_owner(data: Path, database_url: str) -> None:
    """Write the file with the login of the owner of the database. Raises as :func:`write_environment`."""
    lines = export_lines({"TUSSIS_DATABASE_URL": database_url})
    write_whole(data / _OWNER_NAME, "".join(f"{line}\n" for line in lines).encode(), mode=0o600)


def source_command(data: Path) -> str:
    """The command that loads the file into a shell."""
    path = environment_file(data)
    # Without a slash the shell would search PATH for the file.
    shown = str(path) if path.is_absolute() or len(path.parts) > 1 else f"./{path}"
    return f". {shlex.quote(shown)}"
