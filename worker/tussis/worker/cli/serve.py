"""``tussis serve``: the HTTP gateway."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: TUSSIS_SERVE_HOST, 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    metavar="PORT",
    help="Port to listen on; 0: any free port.  [default: TUSSIS_SERVE_PORT, 8080]",
)
@click.option(
    "--tokens-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File with tokens, NAME:TOKEN in each line.  [default: TUSSIS_SERVE_TOKENS_FILE]",
)
@click.option("--upload-prefix", metavar="S3_URI", help="Where uploads are stored.  [default: TUSSIS_UPLOAD_PREFIX]")
def serve(host: str | None, port: int | None, tokens_file: Path | None, upload_prefix: str | None) -> None:
    """Serve the HTTP interface: upload and enqueue recordings, and read outcomes.

    Every request needs a token (Authorization: Bearer TOKEN) of TUSSIS_SERVE_TOKENS or of the file. The gateway speaks
    HTTP, not HTTPS: put a reverse proxy in front of it, unless it serves one machine.

    The command runs until SIGTERM or Ctrl-C, and finishes the requests that it has. It needs the broker. Uploads need
    the object store. With TUSSIS_DATABASE_URL it also answers for older jobs and failures, and cancels jobs.

    \b
    Examples:
      tussis serve --tokens-file tokens --upload-prefix s3://clinic/uploads/
      TUSSIS_SERVE_WITHOUT_TOKENS=true tussis serve

    docs/http.md describes the interface.
    """
    import fastapi  # noqa: F401  # a missing extra is named before anything else
    import uvicorn  # noqa: F401

    from tussis.shared.hidden_keys import hider_of
    from tussis.shared.settings import load_settings
    from tussis.worker import logs
    from tussis.worker.gateway.server import serve as run

    settings = load_settings(
        serve_host=host, serve_port=port, serve_tokens_file=tokens_file, upload_prefix=upload_prefix
    )
    logs.configure(settings.log_format, settings.log_level, hider_of(settings))
    run(settings)
