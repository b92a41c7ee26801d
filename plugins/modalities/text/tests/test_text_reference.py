"""The reference language model, and targets that are asked in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_text.adapter import UNTOKENIZED, TextAdapter
from mi_text.language_model import CausalLanguageModel
from mi_text.reference_model import (
    SMOKE_REFERENCE,
    AskedTarget,
    ReferenceConfig,
    ReferenceModel,
    mean_log_likelihoods,
    restore_reference,
    total_log_likelihoods,
    train_reference,
)
from mi_text.sampling import Sampling
from mi_text.splits import TextSplit
from mi_text.tokenizing import BEGIN_ID, END_ID, text_input, train_tokenizer
from mi_text.transformer import Size
from micore.errors import BudgetExceeded, UsageError
from micore.inputs import InputSpec
from micore.runtime import Random, Runtime
from micore.shelf import Shelf
from micore.target import Target
from micore.threat import Access, Budget, Ledger

CPU = Runtime(device=torch.device("cpu"), seed=3)
TEXTS = tuple(f"the {animal} eats {food} at {hour}" for animal in ("cat", "dog", "cow") for food in ("corn", "milk")
              for hour in ("noon", "night"))  # fmt: skip
CONFIG = ReferenceConfig(**{**SMOKE_REFERENCE, "reference_steps": 150})
GREEDY = Sampling(max_tokens=12, temperature=0)


@pytest.fixture(scope="module")
def reference() -> ReferenceModel:
    return restore_reference(train_reference(TextSplit(TEXTS), 24, CONFIG, CPU), CPU)


def small_model() -> tuple[CausalLanguageModel, InputSpec]:
    spec = text_input(train_tokenizer(TEXTS, 300), 24)
    with CPU.seeded("model"):
        model = CausalLanguageModel(Size(vocabulary=300, tokens=26, width=16, layers=1, heads=2))
    return model, spec


def as_target(model: CausalLanguageModel, spec: InputSpec, budget: int | None = None) -> Target:
    return Target(
        model, access=Access.SCORES, adapter=TextAdapter(spec), input_spec=spec, classes=("text",),
        ledger=Ledger(budget=Budget(queries=budget)), runtime=CPU, role="language-model",
    )  # fmt: skip


@torch.no_grad()
def oracle(model: CausalLanguageModel, spec: InputSpec, text: str) -> Tensor:
    """Score one text token by token, without padding or batches."""
    ids = TextAdapter(spec).encode([text])[0]
    states, _ = model.network(model.network.embed(torch.tensor([[BEGIN_ID, *ids]])))
    log_chances = model.network.logits(states)[0].log_softmax(dim=1)
    return torch.stack([log_chances[place, token] for place, token in enumerate([*ids, END_ID])])


def test_likelihoods_are_those_of_single_texts_whatever_the_batch() -> None:
    model, spec = small_model()
    texts = ["cat", "the dog eats corn at noon", "", "zebra 42"]
    for batch in (1, 3):
        for asked in (AskedTarget(as_target(model, spec), batch), ReferenceModel(model, spec, CPU, batch)):
            for text, found in zip(texts, asked.likelihoods(texts), strict=True):
                torch.testing.assert_close(found, oracle(model, spec, text), rtol=0, atol=1e-4)


def test_totals_and_means_are_over_all_tokens_and_the_end(reference: ReferenceModel) -> None:
    rows = reference.likelihoods(TEXTS[:3])
    torch.testing.assert_close(total_log_likelihoods(reference, TEXTS[:3]), torch.stack([row.sum() for row in rows]))
    means = [row.sum() / len(row) for row in rows]
    torch.testing.assert_close(mean_log_likelihoods(reference, TEXTS[:3]), torch.stack(means))


def test_tokens_that_are_certain_are_no_padding() -> None:
    spec = text_input(train_tokenizer(TEXTS, 300), 24)
    ids = TextAdapter(spec).encode(["cat eats"])[0]

    class Sure(torch.nn.Module):
        services = {"likelihoods": Access.SCORES}  # noqa: RUF012

        def serve(self, name: str, inputs: Tensor, **_: Any) -> Tensor:
            rows = torch.zeros(len(inputs), inputs.shape[1] + 1)
            rows[:, len(ids)] = -2.0  # only the end is not certain
            return rows

    target = Target(
        Sure(), access=Access.SCORES, adapter=TextAdapter(spec), input_spec=spec, classes=("text",), ledger=Ledger(),
        runtime=CPU, role="language-model",
    )  # fmt: skip
    (row,) = AskedTarget(target).likelihoods(["cat eats"])
    assert row.tolist() == [0.0] * len(ids) + [-2.0]


def test_prompt_and_continuation_make_the_text_with_its_spaces(reference: ReferenceModel) -> None:
    (found,) = reference.generate(["the cat eats"], GREEDY, CPU.rng("greedy"))
    assert found.startswith(" ")
    assert "the cat eats" + found in TEXTS


def test_every_prompt_and_text_is_a_query_and_the_budget_is_kept() -> None:
    model, spec = small_model()
    target = as_target(model, spec, budget=10)
    asked = AskedTarget(target, batch=4)
    asked.likelihoods(TEXTS[:5])
    asked.generate(["", "the", "the"], GREEDY, CPU.rng("queries"))
    assert target.ledger.total.queries == 8
    with pytest.raises(BudgetExceeded):
        asked.likelihoods(TEXTS[:3])
    assert target.ledger.total.queries == 8


def test_a_target_that_is_somewhere_else_answers_with_texts_and_lists() -> None:
    def generate(texts: Sequence[str], **_: object) -> list[str]:
        return [f" {text} again" for text in texts]

    def likelihoods(texts: Sequence[str]) -> list[list[float]]:
        return [[-0.5] * (len(text.split()) + 1) for text in texts]

    spec = InputSpec(shape=(64,), options={UNTOKENIZED: True})
    target = Target(
        lambda texts: torch.zeros(len(texts), 1), access=Access.SCORES, adapter=TextAdapter(spec), input_spec=spec,
        classes=("text",), ledger=Ledger(), runtime=CPU, role="language-model",
        services={"generate": (Access.LABEL, generate), "likelihoods": (Access.SCORES, likelihoods)},
    )  # fmt: skip
    asked = AskedTarget(target, batch=2)
    assert asked.generate(["a", "b", "c"], GREEDY, CPU.rng("far")) == [" a again", " b again", " c again"]
    assert [len(row) for row in asked.likelihoods(["one two three", "", "one"])] == [4, 1, 2]


# the reference --------------------------------------------------------------------------------------------


def test_it_learns_the_public_texts(reference: ReferenceModel) -> None:
    shuffled = ["at cat corn eats noon the", "night milk the dog at eats"]
    assert mean_log_likelihoods(reference, TEXTS).min() > mean_log_likelihoods(reference, shuffled).max() + 1


def test_equal_seeds_make_equal_references_and_others_others(reference: ReferenceModel) -> None:
    torch.manual_seed(99)
    again = restore_reference(train_reference(TextSplit(TEXTS), 24, CONFIG, CPU), CPU)
    assert all(torch.equal(a, b) for a, b in zip(again.likelihoods(TEXTS), reference.likelihoods(TEXTS), strict=True))
    other = Runtime(device=torch.device("cpu"), seed=4)
    third = restore_reference(train_reference(TextSplit(TEXTS), 24, CONFIG, other), other)
    assert not torch.equal(third.likelihoods(TEXTS)[0], reference.likelihoods(TEXTS)[0])


def test_it_needs_no_target_and_stands_on_the_shelf(tmp_path: Path) -> None:
    runtime = Runtime(device=torch.device("cpu"), seed=3, shelf=Shelf(tmp_path))
    quick = CONFIG.model_copy(update={"reference_steps": 5})
    train_reference(TextSplit(TEXTS), 24, quick, runtime)
    train_reference(TextSplit((*TEXTS, TEXTS[0])), 24, quick, runtime)  # repeated texts count once
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    for public, tokens, changes in ((TEXTS, 24, {"reference_width": 16}), (TEXTS[:5], 24, {}), (TEXTS, 16, {})):
        train_reference(TextSplit(public), tokens, quick, runtime, **changes)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4


def test_a_text_that_is_too_long_is_cut(reference: ReferenceModel) -> None:
    (row,) = reference.likelihoods(["cat " * 100])
    assert len(row) == 24 + 1


def test_a_limit_of_texts_is_kept() -> None:
    one = CONFIG.model_copy(update={"reference_texts": 1, "reference_steps": 60})
    model = restore_reference(train_reference(TextSplit(TEXTS), 24, one, CPU), CPU)
    assert TEXTS[0].endswith(model.generate(["the cat"], GREEDY, Random(0))[0])
    assert mean_log_likelihoods(model, TEXTS).argmax() == 0


@pytest.mark.parametrize("public", [None, TextSplit(())])
def test_without_public_texts_there_is_no_reference(public: TextSplit | None) -> None:
    with pytest.raises(UsageError, match="public texts"):
        train_reference(public, 24, CONFIG, CPU)
