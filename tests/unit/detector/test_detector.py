"""The detector: loading, answers, and what a recording's answer must not depend on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.support.models import PLAIN, Tiny, images, kept, tiny_bytes, write_tiny
from tussis.shared.errors import InferenceFailed, ModelRefused
from tussis.worker.detector.detector import Detector, logit, read_scores
from tussis.worker.detector.manifest import Manifest, sha256_of, write_manifest


def load(folder: Path, tiny: Tiny = PLAIN) -> Detector:
    return Detector.load(write_tiny(folder, tiny), intra_op_threads=1)


def write_model(path: Path, model: onnx.ModelProto) -> Path:
    data = model.SerializeToString()
    path.write_bytes(data)
    write_manifest(path, Manifest("other", "1", sha256_of(data), "documented", 0.5, ""))
    return path


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values.astype(np.float64)))


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> Detector:
    return Detector.load(tiny_model, intra_op_threads=1)


def test_the_answers_have_the_contract_s_shapes_and_belong_together(detector: Detector) -> None:
    scores = detector.score(images(3, 4), np.ones((3, 4), dtype=bool))

    assert scores.bag_probability.shape == scores.bag_logit.shape == (3,)
    assert scores.segment_probabilities.shape == scores.segment_logits.shape == (3, 4)
    for values in (scores.bag_probability, scores.bag_logit, scores.segment_probabilities, scores.segment_logits):
        assert values.dtype == np.float32
    np.testing.assert_allclose(scores.bag_probability, sigmoid(scores.bag_logit), atol=1e-6)
    np.testing.assert_allclose(scores.segment_probabilities, sigmoid(scores.segment_logits), atol=1e-6)
    assert np.std(scores.segment_logits) > 0.5  # the images differ, and so do the answers


def test_each_recording_gets_the_answer_that_it_gets_alone(detector: Detector) -> None:
    crowd = images(4, 5)
    mask = np.ones((4, 5), dtype=bool)

    together = detector.score(crowd, mask)

    for row in range(4):
        alone = detector.score(crowd[row : row + 1], mask[:1])
        np.testing.assert_allclose(together.bag_logit[row], alone.bag_logit[0], atol=1e-4)
        np.testing.assert_allclose(together.segment_logits[row], alone.segment_logits[0], atol=1e-4)


def test_what_stands_under_the_mask_changes_nothing(detector: Detector) -> None:
    spectrograms = images(1, 5)
    other = spectrograms.copy()
    other[:, 3:] = 2.0
    mask = kept([1, 1, 1, 0, 0])

    scores = [detector.score(batch, mask) for batch in (spectrograms, other)]
    short = detector.score(spectrograms[:, :3], mask[:, :3])

    for padded in scores:
        np.testing.assert_allclose(padded.bag_logit, short.bag_logit, atol=1e-4)
        np.testing.assert_allclose(padded.segment_logits[:, :3], short.segment_logits, atol=1e-4)
        assert np.isnan(padded.segment_logits[:, 3:]).all()
        assert np.isnan(padded.segment_probabilities[:, 3:]).all()
    # Three kept segments are another recording than five: the test above is no accident.
    assert abs(detector.score(spectrograms, mask | True).bag_logit[0] - short.bag_logit[0]) > 1e-3


def test_a_graph_of_one_recording_a_run_gives_the_same(tmp_path: Path, detector: Detector) -> None:
    one = load(tmp_path, Tiny(batch=1))
    spectrograms, mask = images(3, 4), kept([1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0])

    assert one.graph.fixed_batch
    found, expected = one.score(spectrograms, mask), detector.score(spectrograms, mask)

    np.testing.assert_allclose(found.bag_logit, expected.bag_logit, atol=1e-5)
    np.testing.assert_allclose(found.segment_logits, expected.segment_logits, atol=1e-5)


def test_a_graph_of_fixed_segments_gives_the_same(tmp_path: Path, detector: Detector) -> None:
    fixed = load(tmp_path, Tiny(batch=1, segments=32))
    spectrograms, mask = images(2, 3), kept([1, 1, 1], [1, 1, 0])

    found, expected = fixed.score(spectrograms, mask), detector.score(spectrograms, mask)

    assert found.segment_logits.shape == (2, 3)
    np.testing.assert_allclose(found.bag_logit, expected.bag_logit, atol=1e-5)
    np.testing.assert_allclose(found.segment_logits, expected.segment_logits, atol=1e-5)
    with pytest.raises(ValueError, match="33 segments: the graph takes at most 32"):
        fixed.score(images(1, 33), np.ones((1, 33), dtype=bool))


def test_without_logits_in_the_graph_they_come_from_the_probabilities(tmp_path: Path, detector: Detector) -> None:
    bare = load(tmp_path, Tiny(bag_logit=None, segment_logits=None))
    spectrograms, mask = images(2, 3), kept([1, 1, 1], [1, 0, 0])

    found, expected = bare.score(spectrograms, mask), detector.score(spectrograms, mask)

    np.testing.assert_allclose(found.bag_logit, expected.bag_logit, atol=1e-4)
    np.testing.assert_allclose(found.segment_logits, expected.segment_logits, atol=1e-4)


def test_a_logit_is_finite_and_turns_back_into_its_probability() -> None:
    probability = np.array([0.0, 1e-9, 0.25, 0.5, 0.61, 1 - 1e-7, 1.0], dtype=np.float32)

    found = logit(probability)

    assert np.isfinite(found).all()
    assert found.dtype == np.float32
    assert (np.diff(found) >= 0).all()
    assert found[3] == 0
    np.testing.assert_allclose(sigmoid(found), probability, atol=1e-6)


@pytest.mark.parametrize(
    ("spectrograms", "mask", "said"),
    [
        (images(1, 2).astype(np.float64), kept([1, 1]), "float64"),
        (images(1, 2)[0], kept([1, 1]), "not float32"),
        (images(1, 2)[..., :223], kept([1, 1]), "not float32"),
        (images(1, 2), np.ones((1, 2), dtype=np.uint8), "not bool"),
        (images(1, 2), kept([1, 1, 1]), "not bool"),
        (images(2, 2), kept([1, 1], [0, 0]), "must have at least one segment"),
        (images(1, 2)[:, :0], np.ones((1, 0), dtype=bool), "must have at least one segment"),
        (images(1, 2)[:0], np.ones((0, 2), dtype=bool), "must have at least one segment"),
    ],
)
def test_wrong_arrays_are_a_mistake_of_the_caller(
    detector: Detector, spectrograms: np.ndarray, mask: np.ndarray, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        detector.score(spectrograms, mask)


def test_an_answer_that_is_not_finite_is_the_recording_s_failure(detector: Detector) -> None:
    spectrograms = images(2, 3)
    spectrograms[1, 2] = np.nan

    with pytest.raises(InferenceFailed, match="not a probability"):
        detector.score(spectrograms, np.ones((2, 3), dtype=bool))

    # Alone, the first recording is well.
    assert np.isfinite(detector.score(spectrograms[:1], kept([1, 1, 1])).bag_logit).all()


@pytest.mark.parametrize("logit_of_bag", [17.951769, 17.844, 16.0, 40.0, -17.951769, -40.0])
def test_an_answer_beyond_doubt_is_a_probability(logit_of_bag: float) -> None:
    """onnxruntime's Sigmoid rounds some of them to 1.0000001: a sure answer, not a broken one."""
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Sigmoid", ["logit"], ["probability"])],
        "sigmoid",
        [info("logit", onnx.TensorProto.FLOAT, ["n"])],
        [info("probability", onnx.TensorProto.FLOAT, ["n"])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = np.array([logit_of_bag], np.float32)
    (given,) = session.run(None, {"logit": logits})
    outputs = {"bag_probability": given, "bag_logit": logits}
    outputs |= {"segment_probabilities": given[None], "segment_logits": logits[None]}

    found = read_scores(outputs, np.ones((1, 1), np.bool_), 1, "sure@1")

    assert 0 <= found.bag_probability[0] <= 1
    assert 0 <= found.segment_probabilities[0, 0] <= 1
    assert round(float(found.bag_probability[0])) == (logit_of_bag > 0)


@pytest.mark.parametrize("probability", [1.00001, -0.00001, 2.0, float("nan"), float("inf")])
def test_what_is_more_than_rounding_is_refused(probability: float) -> None:
    wrong, right = np.array([probability], np.float32), np.array([[0.5]], np.float32)

    with pytest.raises(InferenceFailed, match='"bag_probability" is not a probability'):
        read_scores({"bag_probability": wrong, "segment_probabilities": right}, np.ones((1, 1), np.bool_), 1, "wrong@1")


def test_a_logit_that_is_not_finite_is_a_failure_as_well(tmp_path: Path) -> None:
    with pytest.raises(InferenceFailed, match='"bag_logit" is not finite'):
        load(tmp_path, Tiny(logit_factor=float("inf"))).score(images(1, 2), kept([1, 1]))


def test_a_run_that_onnxruntime_refuses_is_a_failure_in_one_line(tmp_path: Path) -> None:
    """Given a graph that declares dynamic segments but was traced with two, when it gets three, then it says so."""
    model = onnx.load_from_string(tiny_bytes())
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 2]), "traced"))
    for node in model.graph.node:
        if node.op_type == "Softmax":
            node.input[0] = "reshaped"
    index = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Softmax")
    model.graph.node.insert(index, onnx.helper.make_node("Reshape", ["kept_scores", "traced"], ["reshaped"]))
    detector = Detector.load(write_model(tmp_path / "traced.onnx", model), intra_op_threads=1)
    detector.score(images(1, 2), kept([1, 1]))

    with pytest.raises(InferenceFailed, match=r"the model other@1 failed: .*Reshape") as failure:
        detector.score(images(1, 3), kept([1, 1, 1]))

    assert "\n" not in str(failure.value)
    with pytest.raises(ModelRefused, match="other@1 does not run on 1 segments"):
        detector.warm_up()


def test_an_answer_of_another_shape_than_declared_is_a_failure(tmp_path: Path) -> None:
    model = onnx.load_from_string(tiny_bytes(Tiny(bag_logit=None)))
    for node in model.graph.node:
        node.output[:] = ["all_bags" if name == "bag_probability" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Slice", ["all_bags", "first", "second"], ["bag_probability"]))
    detector = Detector.load(write_model(tmp_path / "short.onnx", model), intra_op_threads=1)

    with pytest.raises(InferenceFailed, match=r'returned "bag_probability" with shape \(1,\), not \(2,\)'):
        detector.score(images(2, 2), kept([1, 1], [1, 1]))


def test_warming_up_runs_the_cap_of_segments(detector: Detector) -> None:
    detector.warm_up()

    assert detector.score(images(1, 32), np.ones((1, 32), dtype=bool)).segment_logits.shape == (1, 32)


def test_a_file_that_was_replaced_is_not_loaded(tmp_path: Path) -> None:
    path = write_tiny(tmp_path)
    path.write_bytes(tiny_bytes(Tiny(logit_factor=1.5)))

    with pytest.raises(ModelRefused, match=r"tiny\.onnx is not the file that its manifest describes"):
        Detector.load(path, intra_op_threads=1)


def test_the_bytes_that_were_hashed_are_those_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a file that is replaced while it is being loaded, then the old one answers, as its manifest says."""
    path = write_tiny(tmp_path)
    expected = Detector.load(path, intra_op_threads=1).score(images(1, 2), kept([1, 1]))
    read = Path.read_bytes

    def read_then_replace(self: Path) -> bytes:
        data = read(self)
        if self == path:
            self.write_bytes(tiny_bytes(Tiny(ignores_mask=True, looks_at_neighbours=True)))
        return data

    monkeypatch.setattr(Path, "read_bytes", read_then_replace)
    found = Detector.load(path, intra_op_threads=1).score(images(1, 2), kept([1, 1]))

    np.testing.assert_array_equal(found.bag_logit, expected.bag_logit)
    assert path.read_bytes() != tiny_bytes()


def test_the_manifest_travels_with_the_detector(tmp_path: Path) -> None:
    path = write_tiny(tmp_path, name="cough", version="2")

    manifest = Detector.load(path, intra_op_threads=1).manifest

    assert manifest.label == "cough@2"
    assert manifest.sha256 == json.loads((tmp_path / "cough.json").read_text())["sha256"]
