"""Candidates for a hidden prompt: written after its prefix, and compared with the evidence by asking again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_attack_prompt_inversion.features import log_probabilities
from mi_attack_prompt_inversion.learning import Learned
from mi_text.asking import embed, likelihoods
from mi_text.evidence import Observed, Outputs, evidence_of
from mi_text.sampling import Sampling
from mi_text.tokenizing import decode
from micore.contracts import Case
from micore.runtime import Runtime
from micore.target import Target


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """What was written for one case, and the decoder's log-likelihoods (n,) of it in nats, on the CPU."""

    texts: list[str]
    likelihoods: Tensor

    def ordered(self, scores: Tensor) -> tuple[list[str], Tensor]:
        """Return the texts with the highest scores first, and the scores (n,)."""
        order = scores.argsort(descending=True, stable=True)
        return [self.texts[place] for place in order.tolist()], scores[order].float()


def written(
    learned: Learned, cases: Sequence[Case], prefixes: Tensor, n: int, drawn: Sampling, runtime: Runtime
) -> list[Candidates]:
    """Write n candidates after each case's prefix (C, P, width): the likeliest way, then draws of its own stream."""
    greedy = Sampling(max_tokens=drawn.max_tokens, temperature=0)
    first = torch.zeros(len(cases), drawn.max_tokens, device=prefixes.device)
    parts = [_write(learned, prefixes, greedy, first, runtime)]
    if n > 1:
        uniform = [runtime.rng("candidates", case.id).uniform((n - 1, drawn.max_tokens)) for case in cases]
        repeated = prefixes.repeat_interleave(n - 1, dim=0)
        parts.append(_write(learned, repeated, drawn, torch.cat(uniform), runtime))
    ids = torch.cat([part[0].view(len(cases), -1, drawn.max_tokens) for part in parts], dim=1)
    found = torch.cat([part[1].view(len(cases), -1) for part in parts], dim=1).cpu()
    return [
        Candidates(texts=decode(learned.tokenizer, own.tolist()), likelihoods=likely)
        for own, likely in zip(ids, found, strict=True)
    ]


def _write(
    learned: Learned, prefixes: Tensor, sampling: Sampling, uniform: Tensor, runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """Write one text after each prefix, tile by tile of constant size; ids (N, max_tokens), log-likelihoods (N,)."""
    ids, found = [], []
    for rows in torch.arange(len(prefixes), device=prefixes.device).split(runtime.tile):
        filled = torch.cat([rows, rows[:1].expand(runtime.tile - len(rows))])
        tokens, likely = learned.inverter.decoder.write(prefixes[filled], sampling, uniform[filled].T)
        ids.append(tokens[: len(rows)])
        found.append(likely[: len(rows)])
    return torch.cat(ids), torch.cat(found)


# regenerate and compare ---------------------------------------------------------------------------------------


def likeness(target: Target, case: Case, texts: Sequence[str], n_outputs: int) -> Tensor:
    """Return how well the target's answers to candidates agree with the evidence, float32 (n,), on the CPU.

    A next-token distribution: minus its divergence, in nats, from the candidate's. Outputs: the mean log-likelihood of
    the first ``n_outputs`` after the candidate. The case's texts are asked by themselves, so that no other case
    changes their batches.
    Raises: BudgetExceeded.
    """
    with target.ledger.owned_by([case.id]):
        if isinstance(case.evidence, Observed):
            return _agreement(case.evidence.values, embed(target, texts).cpu())
        outputs = evidence_of(case, Outputs).texts[:n_outputs]
        return _likelihood_of(target, outputs, texts)


def _agreement(evidence: Tensor, answers: Tensor) -> Tensor:
    """Return minus the divergence of answers (n, V) from the evidence (V,)."""
    known = evidence.float()
    difference = log_probabilities(known)[None] - log_probabilities(answers)
    return -(known[None] * difference).sum(dim=1)


def _likelihood_of(target: Target, outputs: Sequence[str], texts: Sequence[str]) -> Tensor:
    """Return the mean over outputs of the log-likelihood of each after each text: of both, without the text's own."""
    different = list(dict.fromkeys(texts))
    alone = [float(values[:-1].sum()) for values in likelihoods(target, different)]
    joined = [f"{text} {output}" for text in different for output in outputs]
    both = torch.tensor([float(values.sum()) for values in likelihoods(target, joined)]).view(len(different), -1)
    found = dict(zip(different, (both.mean(dim=1) - torch.tensor(alone)).tolist(), strict=True))
    return torch.tensor([found[text] for text in texts])
