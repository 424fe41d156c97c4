"""The user's network, against torchvision's names and a plain computation of its pooling."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torchvision.models import resnet18

from tussis.worker.modelling.architecture import CoughNet


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network() -> CoughNet:
    torch.manual_seed(0)
    return CoughNet().eval()


def test_the_keys_are_those_of_the_user_s_checkpoints(network: CoughNet) -> None:
    torchvision_s = {f"backbone.{key}" for key in resnet18().state_dict() if not key.startswith("fc.")}
    linear = {f"{layer}.{part}" for layer in ("attn.0", "attn.2", "bag_head.0", "bag_head.4", "seg_head")
              for part in ("weight", "bias")}  # fmt: skip
    norm = {f"bag_head.2.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}

    assert set(network.state_dict()) == torchvision_s | linear | norm


def test_the_sizes_are_the_contract_s(network: CoughNet) -> None:
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}

    assert shapes["attn.0.weight"] == (128, 512)
    assert shapes["attn.2.weight"] == (1, 128)
    assert shapes["bag_head.0.weight"] == (512, 512)
    assert shapes["bag_head.2.running_mean"] == (512,)
    assert shapes["bag_head.4.weight"] == (1, 512)
    assert shapes["seg_head.weight"] == (1, 512)
    parameters = sum(value.numel() for value in network.parameters())
    assert parameters == pytest.approx(11.5e6, rel=0.01)  # "about 44 MB in float32", the contract says
    assert 4 * parameters / 2**20 == pytest.approx(44, rel=0.01)


def test_the_pooling_is_a_softmax_over_the_kept_segments(network: CoughNet) -> None:
    features = torch.randn(2, 4, 512, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]])

    with torch.no_grad():
        pooled = network.pooled(features, mask)
        for row in range(2):
            own = features[row, mask[row]]
            weights = torch.softmax(network.attn(own), dim=0)
            torch.testing.assert_close(pooled[row], (weights * own).sum(dim=0), atol=1e-6, rtol=1e-5)


def test_a_row_without_segments_gives_numbers(network: CoughNet) -> None:
    with torch.no_grad():
        answers = network(torch.zeros(2, 2, 3, 224, 224), torch.tensor([[True, True], [False, False]]))

    for values in answers:
        assert torch.isfinite(values).all()
    assert answers.bag_logit.shape == (2,)
    assert answers.segment_logits.shape == (2, 2)
    torch.testing.assert_close(answers.bag_probability, torch.sigmoid(answers.bag_logit))
