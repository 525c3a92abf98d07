"""The scalar mix against the original's numbers, and what lambda, gamma and freezing mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pretune.layers.scalar_mix import ScalarMix

MIXES = {
    "mix_ln": ScalarMix(3, layer_norm=True, weights=(0.1, 0.3, 0.5), gamma=1.1),
    "mix": ScalarMix(3, weights=(0.2, 0.4, 0.6), gamma=0.88),
    "mix_top": ScalarMix(3, top=True, gamma=1.3),
}


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("name", MIXES)
def test_the_original_graph_gives_the_same_numbers(shared, name, batch):
    golden = np.load(shared("fixtures/elmo/golden_infer.npz"))
    layers = torch.from_numpy(golden[f"{batch}/lm_embeddings"]).unbind(1)  # L × (N, T, D)
    mask = torch.from_numpy(golden[f"{batch}/mask"])
    expected = torch.from_numpy(golden[f"{batch}/{name}"])
    mixed = MIXES[name](layers, mask)
    torch.testing.assert_close(mixed[mask], expected[mask], atol=2e-6 if name == "mix_ln" else 1e-6, rtol=0)
    assert not mixed[~mask].any()


def test_the_penalty_is_of_the_weights_before_the_softmax():
    assert 0.5 * MIXES["mix_ln"].penalty().item() == pytest.approx(0.175)
    assert 0.5 * MIXES["mix"].penalty().item() == pytest.approx(0.28)
    assert MIXES["mix_top"].penalty().item() == 0


def test_the_penalty_pulls_at_the_weights_and_leaves_gamma_alone():
    mix = ScalarMix(2, weights=(1.0, -2.0))
    mix.penalty().backward()
    assert mix.weights.grad.tolist() == [2, -4] and mix.gamma.grad is None


def test_huge_weights_pick_one_layer():
    layers = list(torch.randn(3, 2, 5, 4))
    mix = ScalarMix(3, weights=(-9e10, 1, -9e10))
    assert torch.equal(mix(layers, everywhere(layers)), layers[1])
    assert mix.shares().tolist() == [0, 1, 0]


def test_the_top_alone_has_nothing_to_learn_but_gamma():
    layers = list(torch.randn(3, 2, 5, 4))
    mix = ScalarMix(3, top=True)
    assert [name for name, _ in mix.named_parameters()] == ["gamma"] == list(mix.state_dict())
    assert torch.equal(mix(layers, everywhere(layers)), layers[2])
    assert mix.shares().tolist() == [0, 0, 1]


def test_a_frozen_mix_cannot_be_thawed_and_is_saved_all_the_same():
    mix = ScalarMix(2, weights=(0.5, 1.5), gamma=0.9, frozen=True).requires_grad_(True)
    assert not list(mix.parameters())
    assert set(mix.state_dict()) == set(ScalarMix(2).state_dict())
    free = ScalarMix(2)
    free.load_state_dict(mix.state_dict())
    assert free.gamma.item() == pytest.approx(0.9) and free.shares()[1] == mix.shares()[1]


def test_shares_add_up_to_one_in_the_order_of_the_layers():
    shares = ScalarMix(3, weights=(0.0, 1.0, 2.0)).shares()
    assert shares.sum().item() == pytest.approx(1)
    assert (shares[2] / shares[0]).item() == pytest.approx(math.e**2)


def test_a_wrong_number_of_weights_is_an_error():
    with pytest.raises(ValueError, match="a mix of 3 layers was given 2 weights"):
        ScalarMix(3, weights=(0.0, 1.0))


def everywhere(layers: list[Tensor]) -> Tensor:
    return torch.ones(layers[0].shape[:2], dtype=torch.bool)
