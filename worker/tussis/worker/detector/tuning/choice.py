"""How to run a model fastest without changing its answers: decided once, by comparing and measuring.

Ways to run it beside the original graph in onnxruntime: rewritten graphs (``specialise.py``),
and OpenVINO, where its extra is installed and the provider asked for allows it. A way is taken only if its logits stay
within ``TOLERANCE`` of the original's on images that are hard in different ways, and if it is faster, from mel images
to scores. Both depend on the machine, so both are found out there; the decision is kept in the cache folder.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from tussis.shared.errors import InferenceFailed, ModelRefused, NotInstalled, SettingsInvalid
from tussis.shared.installation import pip_line
from tussis.worker import logs
from tussis.worker.detector.detector import Detector, Scores
from tussis.worker.detector.manifest import Manifest, check_sha256, read_manifest, read_model, sha256_of
from tussis.worker.detector.openvino_session import open_openvino, openvino_version
from tussis.worker.detector.session import Runs, open_session
from tussis.worker.detector.tuning.comparison import Differs, Way, answers, compare, ratios
from tussis.worker.detector.tuning.graph_cache import Choice, Facts, GraphCache
from tussis.worker.detector.tuning.graph_edit import NotRecognised
from tussis.worker.detector.tuning.mel_detector import MelDetector
from tussis.worker.detector.tuning.specialise import REWRITE_VERSION, Rewritten, rewritings

_log = logs.get("choice")

AUTO, CPU, OPENVINO = "auto", "cpu", "openvino"
#: What may be asked for.
PROVIDERS: Final = (AUTO, CPU, OPENVINO)
ORIGINAL: Final = "original"
#: How much faster a way has to be: less is lost in the noise of a measurement, and not worth another graph.
LEAST_RATIO: Final = 1.02


def decide(path: Path, *, intra_op_threads: int, provider: str, cache_dir: Path) -> Choice:
    """The way to run a model: as decided before, or decided now, in some seconds and twice the model's memory.

    Args:
        path: the ONNX file, its manifest beside it.
        intra_op_threads: threads that one run will use.
        provider: ``cpu``; ``openvino``; or ``auto``, the faster one.
        cache_dir: where decisions are kept. When it cannot be written the original is run.

    Raises:
        ModelRefused, NotInstalled: as :meth:`Detector.load`, and for ``openvino`` where it is missing or answers
            otherwise.
        SettingsInvalid: no such provider.
    """
    if provider not in PROVIDERS:
        raise SettingsInvalid(f"no provider {provider!r}: use one of {', '.join(PROVIDERS)}")
    if provider == OPENVINO and openvino_version() is None:
        raise NotInstalled(f"OpenVINO is not installed: {pip_line('cpu,openvino')}")
    manifest = read_manifest(path)
    facts = facts_of(manifest, intra_op_threads=intra_op_threads, provider=provider)
    cache = GraphCache(cache_dir)
    try:
        with cache.deciding(facts):
            choice = cache.find(facts)
            known = choice is not None
            if choice is None:
                data = read_model(path)
                check_sha256(data, manifest, str(path))
                way, ratio = _fastest(data, manifest, str(path), facts)
                kept = sha256_of(way.data) if way.data else None
                choice = Choice(manifest.sha256, way.provider, way.form, kept, ratio)
                cache.keep(facts, choice, way.data)
    except OSError as error:
        _log.warning("graph_cache_unusable", path=str(cache.path), reason=error.strerror or str(error))
        return Choice(manifest.sha256, OPENVINO if provider == OPENVINO else CPU, ORIGINAL, None, 1.0)
    _log.info("graph_chosen", provider=choice.provider, form=choice.form, ratio=round(choice.ratio, 2), known=known)
    return choice


def open_chosen(path: Path, choice: Choice | None, *, intra_op_threads: int, cache_dir: Path) -> Detector | MelDetector:
    """Load a model the way that was chosen; None: the original in onnxruntime.

    The file and its manifest are checked as :meth:`Detector.load` does, whatever is run. A rewritten file that is
    damaged or gone, or that belongs to another model, is left alone: the original answers.

    Raises what :meth:`Detector.load` does.
    """
    if choice is None or (choice.file_sha256 is None and choice.provider == CPU):
        return Detector.load(path, intra_op_threads=intra_op_threads)
    manifest = read_manifest(path)
    data = read_model(path)
    check_sha256(data, manifest, str(path))
    if choice.file_sha256 is None:
        return Detector(manifest, _session(data, str(path), choice.provider, intra_op_threads))
    rewritten = GraphCache(cache_dir).read(choice.file_sha256)
    if rewritten is not None and choice.model_sha256 == manifest.sha256:
        return MelDetector(manifest, _session(rewritten, choice.form, choice.provider, intra_op_threads))
    _log.warning("graph_lost", form=choice.form, reason="its file is damaged or gone, or the model is another one")
    return Detector.load(path, intra_op_threads=intra_op_threads)


def facts_of(manifest: Manifest, *, intra_op_threads: int, provider: str) -> Facts:
    """What a decision depends on, on this machine."""
    runtimes = [f"onnxruntime {_version('onnxruntime')}", f"torch {_version('torch')}"]
    if provider != CPU:
        runtimes.append(f"openvino {openvino_version()}")
    return Facts(manifest.sha256, REWRITE_VERSION, ", ".join(runtimes), provider, intra_op_threads, _processor())


def sound_ways(
    data: bytes, manifest: Manifest, where: str, *, threads: int, provider: str, every: bool = False
) -> tuple[Way, list[Way]]:
    """The original in onnxruntime, and the ways whose answers are its own: those that a decision is made between.

    ``every``: all rewritten graphs, not just the first of each runtime that is sound. Raises :class:`ModelRefused`.
    """
    session = open_session(data, where, intra_op_threads=threads)
    original = Way(CPU, ORIGINAL, Detector(manifest, session))
    expected = answers(original)
    ways: list[Way] = []
    for runtime in (CPU, OPENVINO):
        if runtime == CPU or (provider != CPU and openvino_version() is not None):
            tried = _Trial(runtime, data, manifest, where, session, threads, expected)
            ways += tried.ways(every=every)
    return original, ways


def _fastest(data: bytes, manifest: Manifest, where: str, facts: Facts) -> tuple[Way, float]:
    """The way to take, and how many times faster than the original in onnxruntime it is."""
    original, ways = sound_ways(data, manifest, where, threads=facts.threads, provider=facts.provider)
    if facts.provider == OPENVINO:
        ways = [way for way in ways if way.provider == OPENVINO]
        if not ways:
            raise ModelRefused(f"{where}: OpenVINO does not answer as onnxruntime does: use --provider cpu")
    found = ratios(original, ways)
    for way, ratio in zip(ways, found, strict=True):
        _log.info("graph_measured", provider=way.provider, form=way.form, ratio=round(ratio, 3))
    best = max(range(len(ways)), key=lambda index: found[index], default=None)
    if best is not None and (facts.provider == OPENVINO or found[best] >= LEAST_RATIO):
        return ways[best], found[best]
    return original, 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """Trying the ways to run one model with one runtime."""

    provider: str
    data: bytes
    manifest: Manifest
    where: str
    original: Runs
    threads: int
    expected: Sequence[Scores]

    def ways(self, *, every: bool) -> Iterator[Way]:
        """Those whose answers are the original's; of the rewritten graphs the first such one, or ``every``."""
        if self.provider == OPENVINO:
            yield from self._sound(None)
        try:
            for rewritten in rewritings(self.data, winograd=self.provider == CPU):
                found = list(self._sound(rewritten))
                yield from found
                if found and not every:
                    return
        except NotRecognised as reason:
            _log.info("graph_not_recognised", reason=str(reason))

    def _sound(self, rewritten: Rewritten | None) -> Iterator[Way]:
        """The way, if it loads and its answers are the expected ones; a line in the log otherwise."""
        form = ORIGINAL if rewritten is None else rewritten.form
        try:
            session = self._load(self.data if rewritten is None else rewritten.data, form)
            kind = Detector if rewritten is None else MelDetector
            way = Way(self.provider, form, kind(self.manifest, session), rewritten.data if rewritten else None)
            compare(answers(way), self.expected)
        except (ModelRefused, InferenceFailed, Differs) as reason:
            _log.warning("graph_dropped", provider=self.provider, form=form, reason=str(reason))
            return
        yield way

    def _load(self, data: bytes, form: str) -> Runs:
        where = f"{self.where} ({form})"
        if self.provider == OPENVINO:
            return open_openvino(data, where, self.original.graph, threads=self.threads)
        return open_session(data, where, intra_op_threads=self.threads)


def _session(data: bytes, where: str, provider: str, threads: int) -> Runs:
    session = open_session(data, where, intra_op_threads=threads)
    return session if provider == CPU else open_openvino(data, where, session.graph, threads=threads)


def _processor() -> str:
    """Tells processors apart that a runtime would treat differently."""
    flags, model = "", ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            match name.strip():
                case "model name":
                    model = " ".join(value.split())
                case "flags" | "Features":
                    flags = value
                    break
    except OSError:
        pass
    return f"{model or platform.machine()} {sha256_of(flags.encode())[:12]}, {os.cpu_count()} cores"


def _version(package: str) -> str:
    return metadata.version(package)
