"""Finds the model of an analysis by the SHA-256 of its file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tussis.shared.errors import ModelRefused, NotReproducible
from tussis.shared.settings import Settings
from tussis.shared.store.records import Analysis
from tussis.worker.detector.manifest import read_manifest
from tussis.worker.detector.shipped import default_model
from tussis.worker.detector.source import resolve_model


def find_model(analysis: Analysis, given: str | None, settings: Settings, client: Callable[[], Any]) -> Path:
    """The path of the model that made the analysis.

    ``given`` is a path or an S3 URI. None: the model of ``TUSSIS_MODEL``, the model in the package, or one of the
    models that were downloaded from S3 before, whichever has the SHA-256 of the analysis.

    Raises :class:`NotReproducible` if there is no such model, and for a ``given`` model the errors of
    :func:`resolve_model`.
    """
    if given is not None:
        path = resolve_model(given, settings.model_cache_dir, client)
        manifest = read_manifest(path)
        if manifest.sha256 != analysis.model_sha256:
            raise NotReproducible(
                f"{given} is {manifest.label} with the sha256 {manifest.sha256[:12]}..., and the analysis was made by "
                f"{analysis.model} with the sha256 {_short(analysis)}: give that file; to compare models use "
                "`tussis models compare`"
            )
        return path
    for path in _candidates(settings, client):
        try:
            if read_manifest(path).sha256 == analysis.model_sha256:
                return path
        except ModelRefused:
            continue
    raise NotReproducible(
        f"no model with the sha256 {_short(analysis)} ({analysis.model}) in TUSSIS_MODEL, in the package or in "
        f"{settings.model_cache_dir}: give its file with --model"
    )


def _candidates(settings: Settings, client: Callable[[], Any]) -> Iterator[Path]:
    if settings.model is not None:
        with suppress(ModelRefused):  # the next candidate may be the model
            yield resolve_model(settings.model, settings.model_cache_dir, client)
    shipped = default_model()
    if shipped is not None:
        yield shipped
    yield from sorted((settings.model_cache_dir / "models").glob("*/*.onnx"))


def _short(analysis: Analysis) -> str:
    return f"{(analysis.model_sha256 or '')[:12]}..."
