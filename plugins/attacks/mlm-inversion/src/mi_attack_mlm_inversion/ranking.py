"""How likely a masked language model finds a value in its text: each token hidden in turn (pseudo-log-likelihood).

Salazar et al., "Masked Language Model Scoring", ACL 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mi_attack_mlm_inversion.filling import Filler
from mi_attack_mlm_inversion.reading import Row, stacked

_TINY = 1e-30


def pseudo_likelihoods(filler: Filler, rows: Sequence[Row], owner: str) -> list[Tensor]:
    """Return for each row the log-probability in nats of the tokens at its places, each given all others.

    One query for each place. Raises: BudgetExceeded.
    """
    ids = stacked(filler, rows)
    counts = [len(row.places) for row in rows]
    if not sum(counts):
        return [torch.zeros(0) for _ in rows]
    places = torch.tensor([place for row in rows for place in row.places], device=ids.device)
    spread = ids.repeat_interleave(torch.tensor(counts, device=ids.device), dim=0)
    tokens = spread.gather(1, places[:, None])
    masked = spread.scatter(1, places[:, None], filler.mask_id)
    likely = filler.distributions(masked, places, [owner] * len(places))
    return list(likely.gather(1, tokens)[:, 0].clamp(min=_TINY).log().cpu().split(counts))


def ranked(values: Sequence[str], likelihoods: Sequence[Tensor], *, mean: bool) -> tuple[list[str], Tensor]:
    """Return values, most likely first, and their scores, float32 (N,): the sum or the mean over their tokens.

    A value without any token is the least likely of all.
    """
    scores = torch.tensor(
        [
            float((item.mean() if mean else item.sum()) if len(item) else torch.tensor(_TINY).log())
            for item in likelihoods
        ]
    )
    order = scores.argsort(descending=True, stable=True)
    return [values[place] for place in order.tolist()], scores[order]
