"""Training texts of which the beginning is known: continuations, and the chance that one is the true one.

Sources: continuations of the least loss, the Training Data Extraction Challenge
(google-research/lm-extraction-benchmark); chances, Hayes et al., Measuring memorization through probabilistic
discoverable extraction (arXiv:2410.19482).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mi_text.adapter import TextAdapter, pad
from mi_text.reference_model import LanguageModel
from mi_text.sampling import Sampling
from mi_text.tokenizing import BEGIN_ID, END_ID, PAD_ID
from micore.errors import ConfigError
from micore.runtime import Random
from micore.target import Target

GREEDY = 0.0


def continuations(model: LanguageModel, before: str, drawn: int, sampling: Sampling, rng: Random) -> list[str]:
    """Return the different texts that begin so: the most likely continuation, then drawn ones.

    The model is asked to go on after the last word: the space in front of the next one is a part of that in many
    tokenizers.
    """
    prompt = before.rstrip()
    greedy = Sampling(max_tokens=sampling.max_tokens, temperature=GREEDY)
    found = model.generate([prompt], greedy, rng)
    if drawn:
        found += model.generate([prompt] * drawn, sampling, rng)
    gap = before[len(prompt) :]
    return list(dict.fromkeys(prompt + gap + text.lstrip() if gap else prompt + text for text in found))


def suffix_losses(model: LanguageModel, before: str, texts: Sequence[str]) -> Tensor:
    """Return the mean negative log-likelihood of what stands behind a beginning, and of the end, (N,) in nats.

    The tokens of the beginning and none of the others are left out; it is asked about by itself to count them.
    """
    beginning, *rows = model.likelihoods([before.rstrip(), *texts])
    known = len(beginning) - 1  # its end is none of its tokens
    return torch.stack([-row[min(known, len(row) - 1) :].double().mean() for row in rows]).float()


# chances --------------------------------------------------------------------------------------------------


def suffix_probability(target: Target, before: str, after: str, sampling: Sampling) -> float:
    """Return the chance that one drawn continuation of a beginning is the true one, to its end.

    The target, which must have a tokenizer and show whole distributions, answers one query for each token of ``after``
    and one for the end.

    Raises: ConfigError when the sampling is greedy; AccessDenied; BudgetExceeded.
    """
    adapter = TextAdapter(target.input_spec)
    known, whole = (adapter.encode([text])[0] for text in (before, before + after))
    tokens = [*whole[len(known) :], END_ID]
    rows = pad([whole[:place] for place in range(len(known), len(whole) + 1)])
    return sequence_probability(target.scores(rows), torch.tensor(tokens), sampling)


def sequence_probability(distributions: Tensor, tokens: Tensor, sampling: Sampling) -> float:
    """Return the chance that sampling draws these tokens (T,), given each one's distribution (T, V).

    The distributions are those of temperature 1; padding and the mark of the beginning are never drawn.

    Raises: ConfigError when the sampling is greedy.
    """
    if sampling.temperature == 0 or (sampling.hot is not None and sampling.hot <= 0):
        raise ConfigError("the chance of a greedy continuation is 0 or 1", hint="give a temperature above 0")
    log_chances = [
        _log_chance(row.double().cpu(), int(token), sampling, step)
        for step, (row, token) in enumerate(zip(distributions, tokens, strict=True))
    ]
    return math.exp(sum(log_chances))


def _log_chance(distribution: Tensor, token: int, sampling: Sampling, step: int) -> float:
    """Return the log of one token's chance among those that are drawn from."""
    logits = distribution.log().index_fill(0, torch.tensor([PAD_ID, BEGIN_ID]), -torch.inf)
    ordered, tokens = (logits / sampling.temperature_at(step)).sort(descending=True, stable=True)
    if sampling.top_k is not None:
        ordered[sampling.top_k :] = -torch.inf
    chances = ordered.softmax(dim=0)
    if sampling.top_p is not None:
        chances = chances.masked_fill(chances.cumsum(dim=0) - chances >= sampling.top_p, 0.0)
        chances = chances / chances.sum()
    return float(chances[tokens == token].log())


def draws_needed(chance: float, certainty: float) -> float:
    """Return how many draws show a text of this chance at least once with this certainty; infinite when never.

    A text is (n, p)-discoverable when 1 - (1 - chance)^n >= p: n draws at certainty p.

    Raises: ConfigError when the certainty does not lie in (0, 1).
    """
    if not 0 < certainty < 1:
        raise ConfigError(f"a certainty lies in (0, 1), not {certainty}")
    if chance <= 0:
        return math.inf
    return 1.0 if chance >= 1 else math.ceil(math.log1p(-certainty) / math.log1p(-chance))
