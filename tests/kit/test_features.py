"""Penultimate features come out of any classifier that ends in a linear layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from micore.errors import ModelError
from micore.kit.features import features_and_logits, last_linear


def test_features_and_logits_agree():
    body, head = nn.Sequential(nn.Linear(3, 5), nn.ReLU()), nn.Linear(5, 2)
    module = nn.Sequential(body, head)
    inputs = torch.ones(4, 3, requires_grad=True)
    features, logits = features_and_logits(module, inputs)
    assert last_linear(module) is head
    assert torch.equal(features, body(inputs))
    assert torch.equal(logits, head(features))
    (gradient,) = torch.autograd.grad(features.sum(), inputs)
    assert gradient.shape == inputs.shape
    assert not head._forward_pre_hooks


def test_the_hook_is_removed_after_an_error():
    module = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(RuntimeError):
        features_and_logits(module, torch.ones(4, 7))
    assert not module[0]._forward_pre_hooks


def test_a_model_without_linear_layer_is_refused():
    with pytest.raises(ModelError, match="no linear classification layer"):
        last_linear(nn.Conv2d(1, 1, 1))
