"""``tussis preprocess``: write the model's input tensors for one recording to a file."""

from __future__ import annotations

from pathlib import Path

import click

from tussis.shared.errors import PermanentError
from tussis.shared.text import printable

DEFAULT_PROFILE = "documented"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, metavar="OUT.npz", type=click.Path(path_type=Path), help="File to write."
)
@click.option(
    "--profile",
    "profile_name",
    metavar="NAME",
    default=DEFAULT_PROFILE,
    show_default=True,
    help="Preprocessing profile: documented, training or legacy.",
)
def preprocess(file: Path, output: Path, profile_name: str) -> None:
    """Write the input tensors of a model for the recording FILE.

    Use it to compare the preprocessing with that of your training, or to run a model elsewhere. It needs no model.

    OUT.npz contains `spectrograms`, float32 (1, S, 3, 224, 224), for S segments of two seconds; `segment_mask`, bool
    (1, S); and `start_s`, float64 (S,), the start of each segment in seconds. It is written completely or not at all.

    \b
    Example:
      tussis preprocess cough.m4a -o cough.npz --profile training
    """
    from tussis.shared.dsp.profiles import profile_named
    from tussis.shared.settings import load_settings
    from tussis.worker.local_files import check_output, read_capped, written_whole

    profile = profile_named(profile_name)
    settings = load_settings()
    check_output(output, file)
    data = read_capped(file, settings.max_bytes)

    # Imported after the checks: torch takes a second or two to load.
    import numpy as np

    from tussis.worker.pipeline.prepare import limits_of, prepare

    try:
        prepared = prepare(data, profile, limits_of(settings))
    except PermanentError as error:
        raise type(error)(f"{file}: {error}") from error
    with written_whole(output) as stream:
        np.savez(
            stream,
            spectrograms=prepared.spectrograms,
            segment_mask=prepared.segment_mask,
            start_s=np.array(prepared.cut.start_s, dtype=np.float64),
        )
    cut = prepared.cut
    count = len(cut.start_s)
    cap = f" of {cut.num_segments_total}" if cut.truncated else ""
    click.echo(
        f"{printable(str(output))}: {count}{cap} segment{'s' if count > 1 or cap else ''}"
        f" from {cut.analyzed_s:.2f} of {cut.duration_s:.2f} s, profile {profile.name}"
    )
