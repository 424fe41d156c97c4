"""PyTorch checkpoints: those of the architecture are read, weights only; everything else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tussis.shared.errors import ModelRefused
from tussis.worker.modelling.architecture import CoughNet
from tussis.worker.modelling.export import load_checkpoint


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return CoughNet().state_dict()


def saved(folder: Path, document: object) -> Path:
    path = folder / "best.pt"
    torch.save(document, path)
    return path


def test_a_training_checkpoint_is_read(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = saved(
        tmp_path,
        {
            "model_state_dict": state,
            "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 1e-4}]},
            "epoch": 12,
            "val_auc": 0.97,
            "config": {"backbone": "resnet18", "segment_s": 2.0},
        },
    )

    network = load_checkpoint(path)

    assert not network.training
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_a_bare_state_is_read(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    network = load_checkpoint(saved(tmp_path, state))

    assert torch.equal(network.seg_head.weight, state["seg_head.weight"])


class Opens:
    """A pickle of this would write a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_checkpoint_that_would_run_code_is_refused_and_does_not_run_it(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    path = saved(tmp_path, {"model_state_dict": state, "config": Opens(tmp_path / "ran")})

    with pytest.raises(ModelRefused, match=r"best\.pt is not a PyTorch checkpoint of weights alone") as refusal:
        load_checkpoint(path)

    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("seg_head.bias"), r"1 missing \(seg_head\.bias\)"),
        (lambda state: state.update({"backbone.fc.weight": torch.zeros(1)}), r"1 unknown \(backbone\.fc\.weight\)"),
        (lambda state: state.update({"seg_head.weight": torch.zeros(2, 512)}), r"seg_head\.weight is \(2, 512\)"),
        (lambda state: state.update({"seg_head.bias": torch.tensor([torch.nan])}), "seg_head.bias contains NaN"),
        (lambda state: state.update({"seg_head.bias": 0.5}), "has no state dict"),
    ],
    ids=["missing", "unknown", "shape", "nan", "no tensor"],
)
def test_a_state_of_another_shape_is_refused_by_key(
    tmp_path: Path, state: dict[str, torch.Tensor], change: Any, said: str
) -> None:
    wrong = dict(state)
    change(wrong)

    with pytest.raises(ModelRefused, match=said):
        load_checkpoint(saved(tmp_path, {"model_state_dict": wrong}))


def test_prefixed_keys_of_a_wrapped_model_are_named(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    wrapped = {f"module.{key}": value for key, value in state.items()}

    with pytest.raises(ModelRefused, match=r"missing \(backbone\.conv1\.weight\).* unknown \(module\.backbone"):
        load_checkpoint(saved(tmp_path, wrapped))


@pytest.mark.parametrize("document", [[1, 2], 3, "text"])
def test_a_document_without_a_state_is_refused(tmp_path: Path, document: object) -> None:
    with pytest.raises(ModelRefused, match="has no state dict"):
        load_checkpoint(saved(tmp_path, document))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a checkpoint", b"\x80\x02}q\x00."[:4]])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(data)

    with pytest.raises(ModelRefused, match=r"best\.pt") as refusal:
        load_checkpoint(path)

    assert "\n" not in str(refusal.value)


def test_a_checkpoint_that_is_cut_off_is_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = saved(tmp_path, state)
    path.write_bytes(path.read_bytes()[:1_000_000])

    with pytest.raises(ModelRefused, match="is not a PyTorch checkpoint"):
        load_checkpoint(path)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"the checkpoint .* does not exist"):
        load_checkpoint(tmp_path / "best.pt")
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(ModelRefused, match="cannot read the checkpoint"):
        load_checkpoint(tmp_path / "folder.pt")
