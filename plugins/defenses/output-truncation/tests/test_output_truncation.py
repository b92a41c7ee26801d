"""Cut distributions against a loop over tokens, and likelihoods against what the ranks would say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from mi_defense_output_truncation.defense import OutputTruncation, OutputTruncationConfig, floored, truncated
from mi_text.asking import generate, likelihoods
from mi_text.modality import TextModality
from mi_text.sampling import Sampling, choose
from mi_text.toy import toys
from micore.configs import make_config
from micore.errors import ConfigError
from micore.runtime import Random, Runtime
from micore.target import Target
from micore.testing.setting import ToySetting
from micore.threat import Access, Ledger

CPU = Runtime(device=torch.device("cpu"))
CONFIGS: tuple[dict[str, Any], ...] = (
    {"top_k": 1}, {"top_k": 4}, {"top_k": 50}, {"top_k": None, "top_p": 0.6}, {"top_k": 5, "top_p": 0.7},
    {"top_k": None, "temperature": 2.0}, {"top_k": 3, "top_p": 0.5, "temperature": 0.5},
)  # fmt: skip


def settings_of(**options: Any) -> OutputTruncationConfig:
    made = make_config(OutputTruncationConfig, options, "output-truncation")
    assert isinstance(made, OutputTruncationConfig)
    return made


def simplex(n: int, k: int, seed: int = 0) -> Tensor:
    return (2 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed))).softmax(dim=1)


def by_hand(row: list[float], config: OutputTruncationConfig) -> list[float]:
    """Temper, cut and normalise one distribution in Python's numbers."""
    powers = [value ** (1 / config.temperature) for value in row]
    tempered = [value / sum(powers) for value in powers]
    order = sorted(range(len(row)), key=lambda token: (-tempered[token], token))[: config.top_k]
    mass, before, kept = sum(tempered[token] for token in order), 0.0, []
    for token in order:
        if config.top_p is not None and before >= config.top_p:
            break
        kept.append(token)
        before += tempered[token] / mass
    total = sum(tempered[token] for token in kept)
    return [tempered[token] / total if token in kept else 0.0 for token in range(len(row))]


@pytest.mark.parametrize("options", CONFIGS)
def test_distributions_are_cut_as_by_hand(options: dict[str, Any]) -> None:
    config, scores = settings_of(**options), simplex(20, 12)
    found = OutputTruncation(config).adapt_output(scores, [])
    expected = [by_hand(row, config) for row in scores.double().tolist()]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    many = truncated(scores.view(4, 5, 12), config)
    assert torch.equal(many.view(20, 12), found)


@pytest.mark.parametrize("options", [{"top_k": 3}, {"top_k": None, "top_p": 0.5}, {"top_k": 4, "top_p": 0.6}])
def test_what_is_shown_is_what_texts_would_go_on_with(options: dict[str, Any]) -> None:
    """The tokens that sampling with the same bounds can draw."""
    scores = simplex(1, 12)
    draws = torch.linspace(0, 1, 4001)[:-1]
    sampling = Sampling(top_k=options["top_k"], top_p=options.get("top_p"))
    drawn = set(choose(scores.log().expand(4000, 12), sampling, 0, draws).tolist())
    assert set(truncated(scores, settings_of(**options))[0].nonzero().flatten().tolist()) == drawn


def test_equal_tokens_are_cut_by_their_order_and_zeros_stay() -> None:
    assert truncated(torch.full((1, 4), 0.25), settings_of(top_k=2)).tolist() == [[0.5, 0.5, 0, 0]]
    scores = torch.tensor([[0.0, 0.7, 0.3, 0.0]])
    found = truncated(scores, settings_of(top_k=4, temperature=2.0))
    assert found[0, 0] == found[0, 3] == 0
    assert float(found[0, 1] / found[0, 2]) == pytest.approx(math.sqrt(7 / 3), rel=1e-5)


# likelihoods ----------------------------------------------------------------------------------------------

rows = hnp.arrays(np.float64, 9, elements=st.floats(-6, 6)).map(lambda logits: torch.from_numpy(logits).softmax(dim=0))


@given(rows, st.sampled_from([1, 2, 4, None]), st.sampled_from([0.3, 0.9, None]))
def test_only_tokens_that_ranks_would_show_keep_their_likelihood(row: Tensor, k: int | None, p: float | None) -> None:
    if k is None and p is None:
        return
    config = settings_of(top_k=k, top_p=p)
    found = floored(row.log(), config)
    shown = found == row.log()
    cut = truncated(row[None], config)[0] > 0
    assert not bool((shown & ~cut).any())
    assert bool(torch.isclose(found[~shown], torch.tensor(config.floor, dtype=torch.float64).log()).all())


def test_the_bound_is_the_largest_that_holds_for_every_distribution() -> None:
    """With k + 1 equal tokens one of them is cut, so no smaller probability may be shown."""
    config = settings_of(top_k=4)
    assert config.shown_above == pytest.approx(1 / 5)
    even = torch.full((1, 5), 0.2)
    assert int((truncated(even, config) > 0).sum()) == 4
    likelihood = torch.tensor([math.log(0.2), math.log(0.2001)])
    assert floored(likelihood, config).exp().tolist() == pytest.approx([1e-6, 0.2001])
    assert settings_of(top_k=9, top_p=0.5).shown_above == 0.5


def test_padding_stays_and_lists_are_taken() -> None:
    defense = OutputTruncation(settings_of(top_k=1))
    given_ = torch.tensor([[-0.1, -3.0, 0.0]])
    found = defense.adapt_service("likelihoods", given_, ["a"])
    assert found[0, 0] == given_[0, 0]
    assert float(found[0, 1]) == pytest.approx(math.log(1e-6))
    assert found[0, 2] == 0
    rows_ = defense.adapt_service("likelihoods", [[-0.1, -3.0], [-0.2]], ["a", "b"])
    assert [row.tolist() for row in rows_] == [pytest.approx([-0.1, math.log(1e-6)]), pytest.approx([-0.2])]


def test_a_temperature_alone_leaves_likelihoods_and_texts() -> None:
    defense, found = OutputTruncation(settings_of(top_k=None, temperature=3.0)), torch.tensor([[-0.1, -3.0]])
    assert defense.adapt_service("likelihoods", found, ["a"]) is found
    texts = ["goes on"]
    assert OutputTruncation(settings_of()).adapt_service("generate", texts, ["a"]) is texts


# a target -------------------------------------------------------------------------------------------------


def target(toy: ToySetting, *defenses: OutputTruncation) -> Target:
    spec = toy.dataset.input
    with CPU.seeded("target"):
        module = toy.build(1, spec, **toy.model.config)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(4)  # untrained, but with opinions
    return Target(
        module, access=Access.SCORES, adapter=TextModality().adapter(spec), input_spec=spec,
        classes=toy.dataset.classes, ledger=Ledger(), runtime=CPU, role=toy.role, output_defenses=defenses,
    )  # fmt: skip


def toy_of(role: str) -> ToySetting:
    return next(toy for toy in toys() if toy.role == role)


def test_the_interface_of_a_language_model_tells_less_and_writes_the_same() -> None:
    toy, defense = toy_of("language-model"), OutputTruncation(settings_of(top_k=2))
    plain, guarded = target(toy), target(toy, defense)
    texts = toy.dataset.split("private").take(range(6))
    shown = guarded.scores(texts)
    assert (shown > 0).sum(dim=1).tolist() == [2] * 6
    assert torch.equal(shown.argmax(dim=1), plain.scores(texts).argmax(dim=1))
    told = zip(likelihoods(plain, texts), likelihoods(guarded, texts), strict=True)
    for raw, found in told:
        hidden = raw <= math.log(1 / 3)
        assert torch.equal(found[~hidden], raw[~hidden])
        assert found[hidden].tolist() == pytest.approx([math.log(1e-6)] * int(hidden.sum()))
    written = [generate(which, texts, Sampling(max_tokens=4), Random(0)) for which in (plain, guarded)]
    assert written[0] == written[1]


def test_every_position_that_a_masked_model_fills_is_cut() -> None:
    toy, defense = toy_of("masked-language-model"), OutputTruncation(settings_of(top_k=3))
    texts = toy.dataset.split("private").take(range(4))
    found = target(toy, defense).ask("fill", texts)
    assert bool(((found > 0).sum(dim=2) == 3).all())
    torch.testing.assert_close(found.sum(dim=2), torch.ones(found.shape[:2]))
    whole = target(toy).ask("fill", texts)
    assert torch.equal(found.argmax(dim=2), whole.argmax(dim=2))


@pytest.mark.parametrize(
    "options",
    [{"top_k": 0}, {"top_k": None}, {"top_p": 0}, {"top_p": 1.5}, {"temperature": 0}, {"top_k": 50, "floor": 0.1}],
)
def test_bad_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        settings_of(**options)
