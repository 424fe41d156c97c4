"""Reading an ONNX file's own facts, held against the ``onnx`` package."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper

from tests.support.models import Tiny, tiny_bytes
from tussis.worker.detector.onnx_file import NotOnnx, read_facts


@pytest.mark.parametrize("opset", [13, 17])
def test_the_opset_is_that_of_the_default_domain(opset: int) -> None:
    model = onnx.load_from_string(tiny_bytes(Tiny(opset=opset)))
    model.opset_import.insert(0, helper.make_opsetid("com.microsoft", 99))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))

    assert read_facts(model.SerializeToString()).opset == opset


def test_the_default_domain_may_be_spelled_out() -> None:
    model = onnx.load_from_string(tiny_bytes())
    model.opset_import[0].domain = "ai.onnx"

    assert read_facts(model.SerializeToString()).opset == 17


def test_weights_in_other_files_are_noticed() -> None:
    model = onnx.load_from_string(tiny_bytes())
    assert not read_facts(model.SerializeToString()).external_data

    tensor = model.graph.initializer[3]
    external_data_helper.set_external_data(tensor, location="weights.bin")
    tensor.data_location = TensorProto.EXTERNAL

    assert read_facts(model.SerializeToString()).external_data


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"<html>no such page</html>", b"\xff" * 40, b'{"name": "cough"}'])
def test_other_files_are_no_onnx_model(data: bytes) -> None:
    with pytest.raises(NotOnnx):
        read_facts(data)


@pytest.mark.parametrize("length", [1, 2, 100, 5000])
def test_a_file_that_is_cut_off_is_no_onnx_model(length: int) -> None:
    with pytest.raises(NotOnnx):
        read_facts(tiny_bytes()[:length])
