"""What was written for a case of an inverter's, and how near to the evidence the target finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from mi_text.asking import embed
from micore.contracts import Case
from micore.target import Target

NOTHING = -1.0
"""The cosine of an empty text, about which the target is not asked."""


@dataclass(kw_only=True)
class Guesses:
    """What was written for a case, and what the target answered to it.

    evidence: the embedding that the adversary holds, (d,), CPU. texts, likelihoods: what the hypothesis wrote, the
    likeliest token by token first, and the mean log-likelihood of a token of each. embeddings, cosines: of each text
    that the target was asked about. queries: how many these were.
    """

    case: Case
    evidence: Tensor
    texts: list[str]
    likelihoods: list[float]
    embeddings: dict[str, Tensor] = field(default_factory=dict)
    cosines: dict[str, float] = field(default_factory=dict)
    queries: int = 0

    def ask(self, target: Target, texts: Sequence[str]) -> None:
        """Let the target embed texts, each different one once, and compare them with the evidence.

        A case's texts are asked in batches of their own: a batch's padding may change the last digits of answers, so
        that they would depend on the other cases. The target reads the very strings that are given back.

        Raises: BudgetExceeded; then nothing of these is known.
        """
        self.cosines.update({text: NOTHING for text in texts if not text})
        fresh = [text for text in dict.fromkeys(texts) if text not in self.cosines]
        if not fresh:
            return
        with target.ledger.owned_by([self.case.id]):
            answers = embed(target, fresh).float().cpu()
        cosines = functional.cosine_similarity(answers, self.evidence[None], dim=1).tolist()
        self.queries += len(fresh)
        self.embeddings.update(zip(fresh, answers, strict=True))
        self.cosines.update(zip(fresh, cosines, strict=True))

    def by_likelihood(self) -> tuple[list[str], Tensor]:
        """Return what the hypothesis wrote, likeliest first, and the mean log-likelihoods, float32."""
        return _best_first(self.texts, self.likelihoods)

    def by_cosine(self) -> tuple[list[str], Tensor]:
        """Return what the hypothesis wrote, nearest to the evidence first, and the cosines, float32."""
        return _best_first(self.texts, [self.cosines[text] for text in self.texts])

    def nearest(self, n: int) -> tuple[list[str], Tensor]:
        """Return the n different texts nearest to the evidence of all that were asked about; fewer if there are."""
        texts, cosines = _best_first(list(self.cosines), list(self.cosines.values()))
        return texts[:n], cosines[:n]


def _best_first(texts: Sequence[str], scores: Sequence[float]) -> tuple[list[str], Tensor]:
    values = torch.tensor(scores, dtype=torch.float32)
    order = values.argsort(descending=True, stable=True)
    return [texts[place] for place in order.tolist()], values[order]
