"""Losses against float64 formulas written from their papers, and against independent libraries."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import log_loss
from torch import Tensor
from torchmetrics.functional.classification import multiclass_hinge_loss

from micore.kit.losses import (
    LOSSES,
    cross_entropy,
    label_smoothed,
    max_margin,
    negative_logit,
    poincare,
    top_k_margin,
)
from micore.testing.devices import pretend_accelerator


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _oracle_margin(logits: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    rows = []
    for row, label in zip(logits, labels, strict=True):
        others = sorted(np.delete(row, label), reverse=True)[:k]
        rows.append(sum(others) / len(others) - row[label])
    return np.array(rows)


def _oracle_poincare(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    u = logits / np.abs(logits).sum(axis=1, keepdims=True)
    v = np.clip(np.eye(logits.shape[1])[labels] - 1e-4, 0, 1)
    room = (1 - (u**2).sum(axis=1)) * (1 - (v**2).sum(axis=1))
    return np.arccosh(1 + 2 * ((u - v) ** 2).sum(axis=1) / room)


def _oracle_smoothed(logits: np.ndarray, labels: np.ndarray, s: float = 0.1) -> np.ndarray:
    surprise = -_log_softmax(logits)
    return (1 - s) * surprise[np.arange(len(labels)), labels] + s * np.minimum(surprise, 50).mean(axis=1)


ORACLES = {
    "cross_entropy": lambda logits, y: -_log_softmax(logits)[np.arange(len(y)), y],
    "negative_logit": lambda logits, y: -logits[np.arange(len(y)), y],
    "max_margin": _oracle_margin,
    "top_k_margin": partial(_oracle_margin, k=20),
    "poincare": _oracle_poincare,
    "label_smoothed": _oracle_smoothed,
}


def _sample(rows: int = 7, classes: int = 5, seed: int = 0, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * scale
    return torch.from_numpy(logits), torch.from_numpy(rng.integers(classes, size=rows))


def test_every_loss_has_an_oracle_and_the_table_is_read_only() -> None:
    assert set(ORACLES) == set(LOSSES)
    with pytest.raises(TypeError):
        LOSSES["other"] = cross_entropy  # type: ignore[index]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [2, 5, 40])
def test_losses_equal_their_formulas(name: str, classes: int) -> None:
    logits, labels = _sample(classes=classes)
    found = LOSSES[name](logits, labels)
    expected = ORACLES[name](logits.numpy(), labels.numpy())
    assert found.shape == (7,)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(LOSSES[name](logits.float(), labels).numpy(), expected, rtol=2e-3, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    logits=hnp.arrays(np.float64, (3, 6), elements=st.integers(-4, 4).map(float)),  # small integers: many ties
    labels=hnp.arrays(np.int64, 3, elements=st.integers(0, 5)),
    k=st.integers(1, 8),
)
def test_margins_with_ties(logits: np.ndarray, labels: np.ndarray, k: int) -> None:
    inputs = (torch.from_numpy(logits), torch.from_numpy(labels))
    np.testing.assert_allclose(max_margin(*inputs).numpy(), _oracle_margin(logits, labels))
    np.testing.assert_allclose(top_k_margin(*inputs, k=k).numpy(), _oracle_margin(logits, labels, k), atol=1e-12)
    assert torch.equal(top_k_margin(*inputs, k=1), max_margin(*inputs))


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_does_not_depend_on_its_batch(name: str) -> None:
    logits, labels = _sample(rows=6)
    together = LOSSES[name](logits, labels)
    alone = torch.cat([LOSSES[name](logits[i : i + 1], labels[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name: str) -> None:
    logits, labels = _sample(rows=3, classes=4, scale=1.0)
    assert torch.autograd.gradcheck(lambda values: LOSSES[name](values, labels), logits.requires_grad_())


def test_the_margin_gradient_moves_the_label_and_its_strongest_rival() -> None:
    logits = torch.tensor([[1.0, 5.0, 5.0]], requires_grad=True)
    max_margin(logits, torch.tensor([1])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0, -1.0, 1.0]]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(name: str, dtype: torch.dtype) -> None:
    logits, labels = _sample()
    half = logits.to(dtype)
    found = LOSSES[name](half, labels.int())
    assert found.dtype == torch.float32
    assert torch.equal(found, LOSSES[name](half.float(), labels))


def test_independent_libraries_agree() -> None:
    logits, labels = _sample(rows=20)
    probabilities = logits.softmax(1).numpy()
    assert cross_entropy(logits, labels).mean().item() == pytest.approx(
        log_loss(labels.numpy(), probabilities, labels=range(5))
    )
    hinge = (1 + max_margin(logits, labels)).clamp(min=0).mean()  # Crammer-Singer, on raw values in torchmetrics
    raw = logits.softmax(1)
    expected = multiclass_hinge_loss(raw, labels, num_classes=5)
    assert (1 + max_margin(raw, labels)).clamp(min=0).mean().item() == pytest.approx(expected.item())
    assert hinge >= 0
    smooth = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.2, reduction="none")
    torch.testing.assert_close(label_smoothed(logits, labels, smoothing=0.2), smooth)


def test_max_margin_is_negative_exactly_where_the_label_wins() -> None:
    logits, labels = _sample(rows=200)
    assert torch.equal(max_margin(logits, labels) < 0, logits.argmax(1) == labels)


# --- Poincare -------------------------------------------------------------------------------------


@pytest.mark.parametrize("logits", [[[0.0, 0, 0]], [[9.0, 0, 0]], [[0.0, 9, 0]], [[1e30, -1e30, 0]], [[1e-40, 0, 0]]])
def test_poincare_is_finite_on_the_rim_and_at_the_origin(logits: list[list[float]]) -> None:
    values = torch.tensor(logits, requires_grad=True)
    loss = poincare(values, torch.tensor([0]))
    loss.sum().backward()
    assert values.grad is not None
    assert loss.isfinite().all()
    assert loss.item() >= 0
    assert values.grad.isfinite().all()


def test_poincare_falls_as_the_label_takes_over() -> None:
    strengths = torch.tensor([0.0, 1.0, 2.0, 4.0, 8.0])
    logits = torch.ones(5, 3) + strengths[:, None] * torch.tensor([1.0, 0, 0])
    losses = poincare(logits, torch.zeros(5, dtype=torch.long))
    assert (losses.diff() < 0).all()


def test_poincare_has_no_infinite_gradient_where_arcosh_has() -> None:
    logits = torch.tensor([[3.0, 1.0]], requires_grad=True)
    loss = poincare(logits, torch.tensor([0]), epsilon=1e12)  # squeezes the argument of arcosh to 1
    loss.sum().backward()
    assert 0 < loss.item() < 1e-3
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


# --- label smoothing ------------------------------------------------------------------------------


@pytest.mark.parametrize(("missing", "expected"), [(1e-3, -0.687), (1e-12, -1.725)])
def test_negative_smoothing_falls_below_zero(missing: float, expected: float) -> None:
    """The values computed for the research notes: 1000 classes, smoothing -0.05."""
    probabilities = torch.full((1, 1000), missing / 999, dtype=torch.float64)
    probabilities[0, 0] = 1 - missing
    loss = label_smoothed(probabilities.log(), torch.tensor([0]), smoothing=-0.05)
    assert loss.item() == pytest.approx(expected, abs=2e-3)


def test_negative_smoothing_is_clamped() -> None:
    logits = torch.tensor([[1000.0, 0.0, 0.0]], requires_grad=True)
    loss = label_smoothed(logits, torch.tensor([0]), smoothing=-0.05)
    loss.sum().backward()
    assert loss.item() == pytest.approx(-0.05 * 100 / 3)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_a_misjudged_sample_keeps_its_gradient_beyond_the_clamp() -> None:
    logits = torch.tensor([[0.0, 1000.0, 0.0]], requires_grad=True)
    label_smoothed(logits, torch.tensor([0]), smoothing=-0.05).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] < -1
    assert logits.grad[0, 1] > 1


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.long), "logits must be"),
        (torch.zeros(3, 4, dtype=torch.long), torch.zeros(3, dtype=torch.long), "logits must be"),
        (torch.zeros(3, 4), torch.zeros(2, dtype=torch.long), "labels must be"),
        (torch.zeros(3, 4), torch.zeros(3, 1, dtype=torch.long), "labels must be"),
        (torch.zeros(3, 4), torch.zeros(3), "integer"),
        (torch.zeros(3, 4), torch.zeros(3, dtype=torch.bool), "integer"),
    ],
)
@pytest.mark.parametrize("name", LOSSES)
def test_wrong_inputs_are_refused(name: str, logits: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LOSSES[name](logits, labels)


@pytest.mark.parametrize("loss", [max_margin, top_k_margin])
def test_a_margin_needs_a_rival(loss) -> None:
    with pytest.raises(ValueError, match="at least 2 classes"):
        loss(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize(
    "loss",
    [
        partial(top_k_margin, k=0),
        partial(poincare, margin=0.0),
        partial(poincare, margin=1.0),
        partial(poincare, epsilon=0.0),
        partial(label_smoothed, smoothing=1.5),
        partial(label_smoothed, smoothing=float("nan")),
        partial(label_smoothed, smoothing=float("-inf")),
    ],
)
def test_wrong_parameters_are_refused(loss) -> None:
    with pytest.raises(ValueError, match="must"):
        loss(*_sample())


def test_negative_logit_has_a_constant_gradient() -> None:
    logits, labels = _sample()
    logits.requires_grad_()
    negative_logit(logits, labels).sum().backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, -torch.nn.functional.one_hot(labels, 5).double())


@pytest.mark.parametrize("name", LOSSES)
def test_losses_stay_on_their_device(name: str) -> None:
    logits, labels = _sample()
    expected = LOSSES[name](logits, labels)
    with pretend_accelerator() as device:
        found = LOSSES[name](logits.to(device), labels.to(device))
        assert found.device == device
        assert torch.equal(found.cpu(), expected)
