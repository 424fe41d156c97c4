"""Repeats an analysis from what its row says: the same bytes, model, graph, profile and coverage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from tussis.shared.coverage import Coverage
from tussis.shared.dsp.profiles import profile_named
from tussis.shared.errors import (
    BucketMissing,
    Expired,
    InternalFault,
    JobMoved,
    ModelNotServed,
    NeedsMemory,
    NotReproducible,
    ObjectChanged,
    ObjectMissing,
    OperatorError,
    PermanentError,
    TransientError,
    WorkerCrashed,
)
from tussis.shared.s3 import head_object
from tussis.shared.settings import Settings
from tussis.shared.states import AnalysisState
from tussis.shared.store.records import Analysis, Result
from tussis.worker.detector.arithmetic import ORIGINAL
from tussis.worker.detector.tuning.choice import open_form
from tussis.worker.pipeline.analysis import score_all
from tussis.worker.pipeline.object_bytes import ObjectVersion
from tussis.worker.pipeline.objects import fetch
from tussis.worker.pipeline.prepare import limits_of, read_recording
from tussis.worker.pipeline.result import result_of
from tussis.worker.pipeline.scoring import OwnProcess

#: Failures that depend on the workers and servers of that time, and not on the recording.
_NOT_OF_THE_RECORDING: Final = {
    kind.error_class for kind in (Expired, JobMoved, ModelNotServed, NeedsMemory, WorkerCrashed)
}


def check_repeatable(analysis: Analysis) -> None:
    """Raise :class:`NotReproducible` if the analysis has no answer, or a failure that no repetition can show."""
    if analysis.state in (AnalysisState.RUNNING, AnalysisState.WAITING):
        raise NotReproducible(f"job {analysis.job_id} is {analysis.state.value}: wait for its result or failure")
    if analysis.state is AnalysisState.CANCELLED:
        raise NotReproducible(f"job {analysis.job_id} was cancelled: it has no result")
    if analysis.error_class in _NOT_OF_THE_RECORDING:
        raise NotReproducible(
            f"job {analysis.job_id} failed as {analysis.error_class}, which depends on the workers and not on the "
            f"recording: `tussis analyze {analysis.uri}` analyses it here"
        )


def repeat(
    analysis: Analysis, model: Callable[[], Path], settings: Settings, client: Callable[[], Any]
) -> Result | PermanentError:
    """The result of the repetition, or the error with which it fails. ``model`` finds the model, if it is needed.

    Raises :class:`NotReproducible` if the analysis has a result and its bytes are not there any more, the errors of
    ``model``, and transient and operator's errors of the object store.
    """
    has_result = analysis.state is AnalysisState.SUCCEEDED
    path = model() if has_result else None
    try:
        data = _bytes_of(analysis, settings, client())
        profile = profile_named(analysis.profile)
        with torch.inference_mode():
            audio, waveform = read_recording(data, profile, limits_of(settings))
        detector = open_form(path or model(), graph_of(analysis), intra_op_threads=settings.concurrency)
        scorer = OwnProcess(detector)
        with torch.inference_mode():
            scored = score_all(scorer, waveform, Coverage(analysis.coverage))
        return result_of(
            len(data),
            audio,
            waveform,
            scored,
            threshold=detector.manifest.threshold if analysis.threshold is None else analysis.threshold,
            arithmetic=scorer.arithmetic,
            timings_ms={},
        )
    except (ObjectChanged, ObjectMissing, BucketMissing) as error:
        if has_result:
            raise NotReproducible(_gone(analysis, error)) from None
        return error
    except PermanentError as error:
        return error
    except (NotReproducible, OperatorError, TransientError):
        raise
    except Exception as error:
        # The pipeline makes the failure ``internal`` of it.
        return InternalFault(f"{type(error).__name__}: {error}")


def graph_of(analysis: Analysis) -> str:
    """The graph to run: that of the row if a CPU ran it, otherwise the original."""
    used = analysis.software
    return used.graph if used is not None and used.provider == "cpu" else ORIGINAL


def _bytes_of(analysis: Analysis, settings: Settings, s3: Any) -> bytes:
    etag, version_id = analysis.etag, analysis.version_id
    if not etag:  # no object was found at that time
        head = head_object(s3, analysis.bucket, analysis.key, version_id)
        etag, version_id = head.etag, version_id or head.version_id
    return fetch(
        s3,
        ObjectVersion(analysis.bucket, analysis.key, etag, version_id, None),
        max_bytes=settings.max_bytes,
        deadline_s=settings.download_timeout_s,
        verify_md5=settings.verify_md5,
    )


def _gone(analysis: Analysis, error: PermanentError) -> str:
    what = "has changed since" if isinstance(error, ObjectChanged) else "does not exist any more after"
    version = f", version {analysis.version_id}" if analysis.version_id else ""
    return (
        f"{analysis.uri} {what} the analysis of its content with the entity tag {analysis.etag}{version}: without "
        "these bytes the analysis cannot be repeated"
    )
