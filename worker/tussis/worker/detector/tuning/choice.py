"""Choose the fastest graph for a model that gives the same outputs.

The candidates are the original graph and rewritten graphs (``specialise.py``). A rewritten graph is chosen only if its
logits are within ``TOLERANCE`` of the original's on a set of difficult images, and if it is faster from mel images to
scores. Both conditions depend on the machine and are tested on it. The choice is kept in the cache folder.

A choice from the cache saves the measurement of the speed, and nothing else. The graph is made again from the model,
whose SHA-256 is checked, and compared with the original again. The cached file must have the same bytes. So whoever can
write to the cache folder can make a worker slower, but cannot change what it answers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from tussis.shared.errors import InferenceFailed, ModelRefused
from tussis.worker import logs
from tussis.worker.detector.arithmetic import ORIGINAL, cpu_info
from tussis.worker.detector.detector import Detector, Scores
from tussis.worker.detector.manifest import Manifest, check_sha256, read_manifest, read_model, sha256_of
from tussis.worker.detector.session import open_session
from tussis.worker.detector.tuning.comparison import Candidate, Differs, answers, compare, ratios
from tussis.worker.detector.tuning.graph_cache import Choice, Facts, GraphCache
from tussis.worker.detector.tuning.graph_edit import NotRecognised
from tussis.worker.detector.tuning.mel_detector import MelDetector
from tussis.worker.detector.tuning.specialise import REWRITE_VERSION, Rewritten, rewritings

_log = logs.get("choice")

#: The least speed-up for which a rewritten graph is chosen. A smaller one is within the noise of the measurement.
LEAST_RATIO: Final = 1.02
#: The least speed-up over the graph with fewer changes for which the graph with more of them is chosen.
LEAST_GAIN: Final = 1.03


def decide(path: Path, *, intra_op_threads: int, cache_dir: Path) -> Choice:
    """Return the choice for a model from the cache, or make it. That takes seconds and twice the model's memory.

    A cached choice of a rewritten graph is proved against the model, and replaced if it does not hold.

    Args:
        path: the ONNX file, its manifest beside it.
        intra_op_threads: threads that one run will use.
        cache_dir: where choices are kept. If it cannot be written, the original graph is chosen.

    Raises the same errors as :meth:`Detector.load`.
    """
    manifest = read_manifest(path)
    facts = facts_of(manifest, intra_op_threads=intra_op_threads)
    cache = GraphCache(cache_dir)
    try:
        with cache.deciding(facts):
            choice = cache.find(facts)
            data = read_model(path)
            check_sha256(data, manifest, str(path))
            if choice is not None and not _holds(choice, data, manifest, str(path), facts):
                cache.refuse(facts, "the graph is not the one that this version makes from the model")
                choice = None
            known = choice is not None
            if choice is None:
                fastest, ratio = _fastest(data, manifest, str(path), facts)
                kept = sha256_of(fastest.data) if fastest.data else None
                choice = Choice(manifest.sha256, fastest.form, kept, ratio)
                cache.keep(facts, choice, fastest.data)
    except OSError as error:
        _log.warning("graph_cache_unusable", path=str(cache.path), reason=error.strerror or str(error))
        return Choice(manifest.sha256, ORIGINAL, None, 1.0)
    _log.info("graph_chosen", form=choice.form, ratio=round(choice.ratio, 2), known=known)
    return choice


def open_chosen(path: Path, choice: Choice | None, *, intra_op_threads: int, cache_dir: Path) -> Detector | MelDetector:
    """Load a model with the chosen graph. None: the original graph.

    The file and its manifest are always checked as in :meth:`Detector.load`. If the rewritten file is damaged or
    missing, or belongs to another model, the original graph is loaded.

    Raises the same errors as :meth:`Detector.load`.
    """
    if choice is None or choice.file_sha256 is None:
        return Detector.load(path, intra_op_threads=intra_op_threads)
    manifest = read_manifest(path)
    data = read_model(path)
    check_sha256(data, manifest, str(path))
    rewritten = GraphCache(cache_dir).read(choice.file_sha256)
    if rewritten is not None and choice.model_sha256 == manifest.sha256:
        session = open_session(rewritten, choice.form, intra_op_threads=intra_op_threads)
        return MelDetector(manifest, session, choice.form)
    _log.warning(
        "graph_lost", form=choice.form, reason="the rewritten file is damaged or missing, or belongs to another model"
    )
    return Detector.load(path, intra_op_threads=intra_op_threads)


def open_form(path: Path, form: str, *, intra_op_threads: int) -> Detector | MelDetector:
    """Load a model as the rewritten graph ``form``, or as the original if this version cannot make that graph.

    Raises the same errors as :meth:`Detector.load`.
    """
    if form == ORIGINAL:
        return Detector.load(path, intra_op_threads=intra_op_threads)
    manifest = read_manifest(path)
    data = read_model(path)
    check_sha256(data, manifest, str(path))
    try:
        for rewritten in rewritings(data, form):
            session = open_session(rewritten.data, form, intra_op_threads=intra_op_threads)
            return MelDetector(manifest, session, form)
    except (NotRecognised, ModelRefused):
        pass
    return Detector.load(path, intra_op_threads=intra_op_threads)


def facts_of(manifest: Manifest, *, intra_op_threads: int) -> Facts:
    """The facts that a choice depends on, for this machine."""
    runtimes = f"onnxruntime {_version('onnxruntime')}, torch {_version('torch')}"
    return Facts(manifest.sha256, REWRITE_VERSION, runtimes, intra_op_threads, _processor())


def valid_candidates(data: bytes, manifest: Manifest, where: str, *, threads: int) -> tuple[Candidate, list[Candidate]]:
    """The original, and the rewritten graphs whose outputs match the original's.

    Raises :class:`ModelRefused`.
    """
    original = Candidate(ORIGINAL, Detector(manifest, open_session(data, where, intra_op_threads=threads)))
    expected = answers(original)
    found: list[Candidate] = []
    try:
        for rewritten in rewritings(data):
            candidate = _valid_candidate(rewritten, manifest, where, threads, expected)
            if candidate is not None:
                found.append(candidate)
    except NotRecognised as reason:
        _log.info("graph_not_recognised", reason=str(reason))
    return original, found


def _holds(choice: Choice, data: bytes, manifest: Manifest, where: str, facts: Facts) -> bool:
    """Whether a cached choice is the original, or names exactly the graph that this version makes from the model."""
    if choice.file_sha256 is None:
        return True
    try:
        for rewritten in rewritings(data, choice.form):
            if sha256_of(rewritten.data) == choice.file_sha256:
                original = Candidate(
                    ORIGINAL, Detector(manifest, open_session(data, where, intra_op_threads=facts.threads))
                )
                return _valid_candidate(rewritten, manifest, where, facts.threads, answers(original)) is not None
    except NotRecognised:
        pass
    return False


def _fastest(data: bytes, manifest: Manifest, where: str, facts: Facts) -> tuple[Candidate, float]:
    """The fastest candidate, and how many times faster than the original it is."""
    original, others = valid_candidates(data, manifest, where, threads=facts.threads)
    measured = ratios(original, others)
    for candidate, ratio in zip(others, measured, strict=True):
        _log.info("graph_measured", form=candidate.form, ratio=round(ratio, 3))
    best, ratio = original, 1.0
    # In the order of the changes: each graph has those of the one before it.
    for candidate, measured_ratio in zip(others, measured, strict=True):
        if measured_ratio >= ratio * (LEAST_RATIO if best is original else LEAST_GAIN):
            best, ratio = candidate, measured_ratio
    return best, ratio


def _valid_candidate(
    rewritten: Rewritten, manifest: Manifest, where: str, threads: int, expected: Sequence[Scores]
) -> Candidate | None:
    """The candidate, if it loads and its outputs match the expected ones. Otherwise log the reason and return None."""
    try:
        session = open_session(rewritten.data, f"{where} ({rewritten.form})", intra_op_threads=threads)
        candidate = Candidate(rewritten.form, MelDetector(manifest, session, rewritten.form), rewritten.data)
        compare(answers(candidate), expected)
    except (ModelRefused, InferenceFailed, Differs) as reason:
        _log.warning("graph_dropped", form=rewritten.form, reason=str(reason))
        return None
    return candidate


def _processor() -> str:
    """A description that differs between processors for which the runtime may use different code."""
    name, flags = cpu_info()
    return f"{name} {sha256_of(flags.encode())[:12]}, {os.cpu_count()} cores"


def _version(package: str) -> str:
    return metadata.version(package)
