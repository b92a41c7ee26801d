"""Layers are found, read and replaced in networks with and without named stages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from micore.errors import ModelError
from micore.kit.layers import middle_layers, outputs_and_logits, replace_layer, weighted_leaves


class Staged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
        self.head = nn.Linear(5, 2)

    def forward(self, inputs):
        return self.head(self.stages(inputs))


def plain(n: int) -> nn.Sequential:
    return nn.Sequential(*[part for _ in range(n) for part in (nn.Linear(3, 3), nn.ReLU())])


def test_named_stages_are_the_hidden_layers():
    module = Staged()
    assert middle_layers(module) == list(module.stages)


@pytest.mark.parametrize(("layers", "places"), [(3, [1]), (4, [1, 2]), (5, [1, 2, 3]), (8, [2, 4, 6])])
def test_of_others_some_at_equal_distances_are_taken_without_first_and_last(layers, places):
    module = plain(layers)
    assert middle_layers(module, 3) == [weighted_leaves(module)[place] for place in places]


def test_a_network_without_hidden_layer_is_refused():
    with pytest.raises(ModelError, match="no hidden layer"):
        middle_layers(plain(2))


def test_outputs_come_with_the_logits_of_one_pass():
    module, inputs = Staged(), torch.ones(6, 3)
    (first, second), logits = outputs_and_logits(module, list(module.stages), inputs)
    assert torch.equal(first, module.stages[0](inputs))
    assert torch.equal(second, module.stages[1](first))
    assert torch.equal(logits, module.head(second))
    assert not any(layer._forward_hooks for layer in module.modules())


def test_a_layer_is_replaced_wherever_it_stands():
    shared = nn.Linear(2, 2)
    module, new = nn.Sequential(shared, nn.Sequential(shared)), nn.Identity()
    assert replace_layer(module, shared, new) is module
    assert module[0] is new
    assert module[1][0] is new
    assert replace_layer(shared, shared, new) is new
    with pytest.raises(ModelError, match="no part"):
        replace_layer(module, nn.Linear(1, 1), new)
