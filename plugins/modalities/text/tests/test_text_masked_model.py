"""A masked language model as a target."""

from __future__ import annotations

import pytest
import torch

from mi_text.adapter import pad
from mi_text.masked_model import HIDDEN_SHARE, MaskedLanguageModel
from mi_text.tokenizing import MASK_ID, PAD_ID
from mi_text.transformer import Size
from micore.errors import UsageError
from micore.runtime import Runtime

RUNTIME = Runtime(device=torch.device("cpu"))


def model():
    with RUNTIME.seeded("parameters"):
        return MaskedLanguageModel(Size(vocabulary=30, tokens=16, width=16, layers=1, heads=2)).eval()


@torch.no_grad()
def test_the_answer_is_the_filling_of_the_first_hidden_token():
    net, inputs = model(), pad([[7, MASK_ID, 9], [7, 8, 9, 10, MASK_ID, MASK_ID]])
    everywhere = net.serve("fill", inputs)
    assert everywhere.shape == (2, 8, 30)
    torch.testing.assert_close(everywhere.sum(dim=2), torch.ones(2, 8))
    torch.testing.assert_close(net.answer(inputs), torch.stack([everywhere[0, 1], everywhere[1, 4]]))


@torch.no_grad()
def test_padding_changes_nothing():
    net = model()
    short = net.serve("fill", torch.tensor([[7, 8, 9]]))
    torch.testing.assert_close(net.serve("fill", pad([[7, 8, 9]]))[:, :3], short)


def test_a_loss_measured_twice_is_the_same_and_one_in_training_is_not():
    net, inputs, labels = model(), pad([[7, 8, 9, 10, 11, 12, 13, 14, 15]] * 4), torch.zeros(4, dtype=torch.int64)
    assert torch.equal(net.task_loss(inputs, labels), net.task_loss(inputs, labels))
    net.train()
    with RUNTIME.seeded("a"):
        one = net.task_loss(inputs, labels)
    with RUNTIME.seeded("b"):
        assert not torch.equal(one, net.task_loss(inputs, labels))


def test_hidden_are_fifteen_percent_of_the_tokens_and_no_padding():
    net = model().train()
    inputs = pad([[5 + i % 20 for i in range(12)]] * 400, width=16)
    with RUNTIME.seeded("hide"):
        hidden, shown = net._hide(inputs)
    assert not hidden[:, 12:].any()
    assert hidden.any(dim=1).all()
    at_least_one = (1 - HIDDEN_SHARE) ** 12 / 12
    assert float(hidden[:, :12].double().mean()) == pytest.approx(HIDDEN_SHARE + at_least_one, abs=0.02)
    assert float((shown[hidden] == MASK_ID).double().mean()) == pytest.approx(0.8, abs=0.05)
    assert torch.equal(shown[~hidden], inputs[~hidden])
    assert not (shown[:, :12] == PAD_ID).any()


def test_another_service_is_refused():
    with pytest.raises(UsageError, match="no 'generate'"):
        model().serve("generate", pad([[7]]))
