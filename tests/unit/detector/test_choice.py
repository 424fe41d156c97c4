"""How a model is run: decided by comparing and measuring, kept, and never at the price of an answer."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support.convolutions import Convolutions, convolutions, write_convolutions
from tussis.shared.errors import ModelRefused
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import read_manifest, sha256_of
from tussis.worker.detector.tuning import choice as choosing
from tussis.worker.detector.tuning import comparison, graph_cache, tuning_process
from tussis.worker.detector.tuning.choice import decide, facts_of, open_chosen, open_form
from tussis.worker.detector.tuning.comparison import Candidate, spectrograms_of
from tussis.worker.detector.tuning.graph_cache import Choice, GraphCache
from tussis.worker.detector.tuning.mel_detector import MelDetector
from tussis.worker.detector.tuning.specialise import FOLDED, Rewritten, rewritings


@dataclass
class Log:
    """Takes the place of the log."""

    lines: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def info(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))

    warning = info

    def of(self, event: str) -> list[dict[str, object]]:
        return [fields for name, fields in self.lines if name == event]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(choosing, "_log", log)
    monkeypatch.setattr(graph_cache, "_log", log)
    monkeypatch.setattr(tuning_process, "_log", log)
    return log


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_convolutions(tmp_path)


@pytest.fixture
def always_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every measurement says the same: what is decided does not hang on the machine."""
    monkeypatch.setattr(choosing, "ratios", lambda original, ways: [1.5 if way.form == FOLDED else 2.0 for way in ways])


def chosen(model: Path, cache: Path) -> Choice:
    return decide(model, intra_op_threads=1, cache_dir=cache)


def opened(model: Path, choice: Choice | None, cache: Path) -> Detector | MelDetector:
    return open_chosen(model, choice, intra_op_threads=1, cache_dir=cache)


def never(*_: object) -> object:
    raise AssertionError("measured, or rewritten, a second time")


MELS = np.random.default_rng(3).uniform(-1, 1, size=(1, 3, 160, 201)).astype(np.float32)
MASK = np.ones((1, 3), dtype=bool)


def logits(detector: Detector | MelDetector, *, rounded: bool = False) -> np.ndarray:
    scores = Candidate("", detector).score(MELS, MASK, rounded=rounded)
    return np.append(scores.segment_logits, scores.bag_logit)


# --- the decision ---


@pytest.mark.usefixtures("always_faster")
@pytest.mark.parametrize("rounded", [False, True])
def test_a_faster_graph_answers_in_the_original_s_place(model: Path, tmp_path: Path, log: Log, rounded: bool) -> None:
    choice = chosen(model, tmp_path)
    detector = opened(model, choice, tmp_path)

    assert isinstance(detector, MelDetector)
    detector.warm_up()
    np.testing.assert_allclose(
        logits(detector, rounded=rounded), logits(opened(model, None, tmp_path), rounded=rounded), atol=1e-3
    )
    assert log.of("graph_chosen") == [{"form": "folded+winograd", "ratio": 2.0, "known": False}]


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.01])
def test_a_graph_that_is_hardly_faster_is_not_taken(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log, ratio: float
) -> None:
    monkeypatch.setattr(choosing, "ratios", lambda original, ways: [ratio for _ in ways])

    choice = chosen(model, tmp_path)

    assert (choice.form, choice.file_sha256, choice.ratio) == ("original", None, 1.0)
    assert isinstance(opened(model, choice, tmp_path), Detector)
    assert log.of("graph_measured") == [{"form": form, "ratio": ratio} for form in (FOLDED, "folded+winograd")]


@pytest.mark.parametrize(("gain", "form"), [(1.02, "folded"), (1.04, "folded+winograd")])
def test_the_graph_with_more_changes_has_to_gain_three_percent(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gain: float, form: str
) -> None:
    monkeypatch.setattr(choosing, "ratios", lambda original, ways: [1.5, 1.5 * gain])

    assert chosen(model, tmp_path).form == form


@pytest.mark.parametrize("fastest", ["folded", "folded+winograd"])
def test_the_fastest_graph_is_taken(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log, fastest: str
) -> None:
    monkeypatch.setattr(
        choosing, "ratios", lambda original, ways: [3.0 if way.form == fastest else 1.5 for way in ways]
    )

    choice = chosen(model, tmp_path)

    assert (choice.form, choice.ratio) == (fastest, 3.0)
    detector = opened(model, choice, tmp_path)
    assert isinstance(detector, MelDetector)
    np.testing.assert_allclose(logits(detector), logits(opened(model, None, tmp_path)), atol=1e-3)


@pytest.mark.usefixtures("always_faster")
def test_a_wrong_rewriting_is_dropped_for_the_next_one_and_said(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    def wrong_first(data: bytes) -> Iterator[Rewritten]:
        for index, made in enumerate(rewritings(data)):
            yield damaged(made) if index == 0 else made

    monkeypatch.setattr(choosing, "rewritings", wrong_first)

    assert chosen(model, tmp_path).form == "folded+winograd"

    (dropped,) = log.of("graph_dropped")
    assert dropped["form"] == "folded"
    assert "differs from the original's by" in str(dropped["reason"])


@pytest.mark.usefixtures("always_faster")
def test_with_every_rewriting_wrong_the_original_answers(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    def all_wrong(data: bytes) -> Iterator[Rewritten]:
        return (damaged(made) for made in rewritings(data))

    monkeypatch.setattr(choosing, "rewritings", all_wrong)

    assert chosen(model, tmp_path).form == "original"
    assert len(log.of("graph_dropped")) == 2


@pytest.mark.usefixtures("always_faster")
def test_a_rewriting_that_no_runtime_loads_is_dropped(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    monkeypatch.setattr(choosing, "rewritings", lambda data: iter([Rewritten("broken", b"no model")]))

    assert chosen(model, tmp_path).form == "original"
    assert log.of("graph_dropped")[0]["form"] == "broken"


def damaged(made: Rewritten) -> Rewritten:
    """One filter of the first convolution is off by a twentieth."""
    model = onnx.load_from_string(made.data)
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    weights = numpy_helper.to_array(tensor).copy()
    weights[0] *= 1.05
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    return Rewritten(made.form, model.SerializeToString())


def test_a_graph_that_is_not_recognised_is_run_as_it_is(tmp_path: Path, log: Log) -> None:
    def output(model: onnx.ModelProto) -> None:
        value = onnx.helper.make_tensor_value_info("spectrograms", onnx.TensorProto.FLOAT, ["b", "s", 3, 224, 224])
        model.graph.output.append(value)

    model = write_convolutions(tmp_path, Convolutions(change=output))

    choice = chosen(model, tmp_path)

    assert choice.form == "original"
    assert log.of("graph_not_recognised") == [{"reason": '"spectrograms" is an output'}]
    opened(model, choice, tmp_path).warm_up()


# --- what is kept ---


@pytest.mark.usefixtures("always_faster")
def test_a_decision_is_made_once(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    first = chosen(model, tmp_path)
    monkeypatch.setattr(choosing, "_fastest", never)

    assert chosen(model, tmp_path) == first
    assert [line["known"] for line in log.of("graph_chosen")] == [False, True]


@pytest.mark.usefixtures("always_faster", "log")
def test_another_thread_count_version_or_processor_is_decided_anew(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(model)
    facts = facts_of(manifest, intra_op_threads=1)
    cache = GraphCache(tmp_path)
    chosen(model, tmp_path)
    assert cache.find(facts) is not None

    others = [facts_of(manifest, intra_op_threads=2)]
    monkeypatch.setattr(choosing, "REWRITE_VERSION", -1)
    others.append(facts_of(manifest, intra_op_threads=1))
    monkeypatch.undo()
    monkeypatch.setattr(choosing, "_processor", lambda: "another")
    others.append(facts_of(manifest, intra_op_threads=1))
    monkeypatch.undo()
    monkeypatch.setattr(choosing, "_version", lambda package: "0.0")
    others.append(facts_of(manifest, intra_op_threads=1))

    assert len({facts.key, *(other.key for other in others)}) == 5
    assert [cache.find(other) for other in others] == [None] * 4


@pytest.mark.usefixtures("always_faster", "log")
def test_a_damaged_graph_is_made_anew(model: Path, tmp_path: Path) -> None:
    choice = chosen(model, tmp_path)
    file = tmp_path / "graphs" / f"{choice.file_sha256}.onnx"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])

    # Who has decided already answers with the original; who starts makes it whole again.
    assert isinstance(opened(model, choice, tmp_path), Detector)
    assert chosen(model, tmp_path) == choice
    assert file.read_bytes() == whole


@pytest.mark.usefixtures("always_faster", "log")
def test_a_damaged_decision_is_made_anew(model: Path, tmp_path: Path) -> None:
    choice = chosen(model, tmp_path)
    (file,) = (tmp_path / "graphs").glob("*.json")
    file.write_bytes(file.read_bytes()[:-20])

    assert chosen(model, tmp_path) == choice
    assert json.loads(file.read_text())["choice"]["form"] == "folded+winograd"


def forge(cache: Path, data: bytes, **changed: object) -> None:
    """Write a graph into the cache, and name it in the choice, as whoever can write to the folder can do."""
    (file,) = (cache / "graphs").glob("*.json")
    document = json.loads(file.read_text())
    document["choice"] |= {"file_sha256": sha256_of(data), **changed}
    file.write_text(json.dumps(document))
    (cache / "graphs" / f"{sha256_of(data)}.onnx").write_bytes(data)


def made(model: Path, form: str) -> Rewritten:
    (rewritten,) = rewritings(model.read_bytes(), form)
    return rewritten


@pytest.mark.usefixtures("always_faster")
@pytest.mark.parametrize("attack", ["forged graph", "other form", "another model's graph", "another model's entry"])
def test_a_forged_entry_is_refused_said_and_replaced(model: Path, tmp_path: Path, log: Log, attack: str) -> None:
    """Given a choice and a graph that match each other, but not the model, then the model's own graph answers."""
    choice = chosen(model, tmp_path)
    whole = {file.name: file.read_bytes() for file in (tmp_path / "graphs").iterdir()}
    if attack == "forged graph":
        forge(tmp_path, damaged(made(model, choice.form)).data)
    elif attack == "other form":
        forge(tmp_path, made(model, "folded").data)
    else:
        folder = tmp_path / "other"
        folder.mkdir()
        other = write_convolutions(folder, Convolutions(bias=False))
        if attack == "another model's graph":
            forge(tmp_path, made(other, choice.form).data)
        else:
            chosen(other, folder)
            (theirs,) = (folder / "graphs").glob("*.json")
            (ours,) = (tmp_path / "graphs").glob("*.json")
            ours.write_bytes(theirs.read_bytes())
    log.lines.clear()

    assert chosen(model, tmp_path) == choice

    (refused,) = log.of("graph_cache_refused")
    assert str(tmp_path / "graphs") in str(refused["path"])
    assert [line["known"] for line in log.of("graph_chosen")] == [False]
    for name, data in whole.items():
        assert (tmp_path / "graphs" / name).read_bytes() == data
    np.testing.assert_allclose(
        logits(opened(model, choice, tmp_path)), logits(opened(model, None, tmp_path)), atol=1e-3
    )


@pytest.mark.usefixtures("always_faster")
def test_a_choice_whose_graph_does_not_hold_here_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """Given a cached graph of ours whose outputs differ from the original's on this machine, then it is not used."""
    chosen(model, tmp_path)
    monkeypatch.setattr(comparison, "TOLERANCE", 0.0)

    assert chosen(model, tmp_path).form == "original"
    assert len(log.of("graph_cache_refused")) == 1


@pytest.mark.usefixtures("always_faster", "log")
def test_a_graph_that_changes_after_the_choice_does_not_answer(model: Path, tmp_path: Path) -> None:
    """A child knows the graph's SHA-256 from its parent, not from the folder."""
    choice = chosen(model, tmp_path)
    (tmp_path / "graphs" / f"{choice.file_sha256}.onnx").write_bytes(damaged(made(model, choice.form)).data)

    assert isinstance(opened(model, choice, tmp_path), Detector)


@pytest.mark.usefixtures("always_faster", "log")
def test_a_link_in_the_cache_is_not_followed_by_a_write(model: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    facts = facts_of(read_manifest(model), intra_op_threads=1)
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / f"{facts.key}.json").symlink_to(victim)
    assert chosen(model, tmp_path).form == "folded+winograd"
    (tmp_path / "graphs" / f".{facts.key}.lock").unlink()
    (tmp_path / "graphs" / f".{facts.key}.lock").symlink_to(victim)
    assert chosen(model, tmp_path).form == "original"  # the cache is unusable

    assert victim.read_text() == "precious"


def test_the_folder_is_the_user_s_own(model: Path, tmp_path: Path) -> None:
    chosen(model, tmp_path / "new")

    assert (tmp_path / "new" / "graphs").stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("always_faster", "log")
def test_a_graph_of_another_model_does_not_answer(model: Path, tmp_path: Path) -> None:
    """Given a model that was replaced since the decision, when a child starts, then the new one answers."""
    choice = chosen(model, tmp_path)
    write_convolutions(tmp_path, Convolutions(bias=False))

    detector = opened(model, choice, tmp_path)

    assert isinstance(detector, Detector)
    assert detector.manifest.sha256 != choice.model_sha256


@pytest.mark.usefixtures("always_faster", "log")
def test_a_file_that_is_not_its_manifest_s_is_refused_however_it_is_run(model: Path, tmp_path: Path) -> None:
    choice = chosen(model, tmp_path)
    model.write_bytes(convolutions(Convolutions(bias=False)))

    with pytest.raises(ModelRefused, match="is not the file that its manifest describes"):
        opened(model, choice, tmp_path)
    with pytest.raises(ModelRefused, match="is not the file that its manifest describes"):
        decide(model, intra_op_threads=2, cache_dir=tmp_path)


def test_without_a_place_to_keep_it_the_original_answers(model: Path, tmp_path: Path, log: Log) -> None:
    (tmp_path / "file").write_text("")

    choice = chosen(model, tmp_path / "file")

    assert choice.form == "original"
    assert log.of("graph_cache_unusable")
    assert isinstance(opened(model, choice, tmp_path / "file"), Detector)


def _decide_in_a_race(model: Path, cache: Path, gate: object, answers: object) -> None:
    gate.wait(60)  # type: ignore[attr-defined]
    answers.put(chosen(model, cache))  # type: ignore[attr-defined]


@pytest.mark.usefixtures("always_faster", "log")
def test_processes_that_decide_at_once_decide_the_same(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = multiprocessing.get_context("fork")
    gate, answers, measured = context.Barrier(3), context.Queue(), context.Value("i", 0)
    fastest = choosing._fastest

    def counted(*arguments: object) -> tuple[Candidate, float]:
        with measured.get_lock():
            measured.value += 1
        return fastest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(choosing, "_fastest", counted)
    processes = [context.Process(target=_decide_in_a_race, args=(model, tmp_path, gate, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)

    assert len(set(found)) == 1
    assert measured.value == 1
    assert opened(model, found[0], tmp_path).graph


# --- in a process of its own ---


@pytest.mark.usefixtures("always_faster", "log")
def test_the_parent_loads_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = tuning_process.decide_in_own_process(model, intra_op_threads=1, cache_dir=tmp_path)
    monkeypatch.setattr(choosing, "_fastest", never)

    assert choice is not None
    assert chosen(model, tmp_path) == choice


def test_a_process_that_dies_costs_speed_only(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    monkeypatch.setattr(tuning_process, "decide", lambda *_, **__: __import__("os")._exit(7))

    assert tuning_process.decide_in_own_process(model, intra_op_threads=1, cache_dir=tmp_path) is None

    assert log.of("graph_not_decided") == [{"reason": "its process ended with exit code 7"}]


def test_a_model_that_cannot_be_loaded_is_left_to_whoever_loads_it(model: Path, tmp_path: Path) -> None:
    model.write_bytes(convolutions(Convolutions(bias=False)))

    assert tuning_process.decide_in_own_process(model, intra_op_threads=1, cache_dir=tmp_path) is None
    with pytest.raises(ModelRefused, match="is not the file that its manifest describes"):
        opened(model, None, tmp_path)


def test_a_mel_image_becomes_the_contract_s_input() -> None:
    spectrograms = spectrograms_of(MELS, rounded=False)

    assert spectrograms.shape == (1, 3, 3, 224, 224)
    # The margins are -1 before ImageNet's step.
    np.testing.assert_allclose(spectrograms[0, 0, :, 0, 0], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5)


def test_a_graph_is_opened_by_its_form(model: Path) -> None:
    """Given the form in a row, then the same graph is made again, and a form of another version is the original."""
    forms = [rewritten.form for rewritten in rewritings(model.read_bytes())]
    assert forms
    for form in forms:
        detector = open_form(model, form, intra_op_threads=1)
        assert isinstance(detector, MelDetector)
        assert detector.form == form
    for form in ("original", "of another version"):
        detector = open_form(model, form, intra_op_threads=1)
        assert isinstance(detector, Detector)
        assert detector.form == "original"


def test_a_graph_that_is_not_recognised_is_opened_as_it_is(tiny_model: Path) -> None:
    assert open_form(tiny_model, "folded", intra_op_threads=1).form == "original"
