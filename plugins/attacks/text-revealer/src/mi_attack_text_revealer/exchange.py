"""Exchanging tokens of texts by a classifier's gradients: first-order proposals, each looked at exactly.

Ebrahimi et al., "HotFlip", ACL 2018; in the batched form of Zou et al., 2023 (GCG).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from mi_attack_text_revealer.prior import TextPrior
from mi_text.tokenizing import BEGIN_ID, PAD_ID, SPECIALS, decode
from micore.kit.case_rows import tiled
from micore.runtime import Runtime
from micore.target import Target


@dataclass(frozen=True, kw_only=True)
class Stand:
    """Texts in work. ids: int64 (N, width); losses, unlikelihoods: of the class and of the prior, float32 (N,)."""

    ids: Tensor
    losses: Tensor
    unlikelihoods: Tensor

    @property
    def lengths(self) -> Tensor:
        """Tokens of each text, (N,)."""
        return (self.ids != PAD_ID).sum(dim=1)


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """Changed texts, int64 (N, B, width) before they are read again; expected: change of the objective (N, B)."""

    ids: Tensor
    expected: Tensor


@dataclass(frozen=True)
class Exchange:
    """One search for all rows (N). labels (N,); owners: ids of the cases that pay, (N,).

    candidates: tokens that are considered for each place; swaps: exact looks for each text and round; fluency: weight
    of the prior's mean negative log-likelihood beside the classifier's loss.
    """

    prior: TextPrior
    target: Target
    labels: Tensor
    owners: Sequence[str]
    width: int
    candidates: int
    swaps: int
    fluency: float
    runtime: Runtime

    @cached_property
    def special(self) -> Tensor:
        """Ids of tokens that are never put in nor taken out."""
        added = set(self.prior.tokenizer.get_added_tokens_decoder()) | set(range(len(SPECIALS)))
        return torch.tensor(sorted(added), device=self.labels.device)

    def start(self, texts: Sequence[str]) -> Stand:
        """Look at the texts that the search begins with."""
        return self._seen(texts, self.labels, self.owners)

    def objective(self, stand: Stand) -> Tensor:
        """Return what is made small, (N,)."""
        return stand.losses + self.fluency * stand.unlikelihoods

    def round(self, stand: Stand, uniform: Tensor) -> tuple[Stand, Tensor]:
        """Propose, look, and take for each text the best change if it is better; uniform: (N, swaps, 2).

        Also returns how much worse than the first order says each text's changes are on average, (N,): the gap of
        relaxation.
        """
        proposals = self.propose(stand, uniform)
        n, swaps = proposals.expected.shape
        texts = decode(self.prior.tokenizer, proposals.ids.flatten(0, 1).tolist())
        labels = self.labels.repeat_interleave(swaps)
        seen = self._seen(texts, labels, [owner for owner in self.owners for _ in range(swaps)])
        reached = self.objective(seen).view(n, swaps)
        gap = (reached - self.objective(stand)[:, None] - proposals.expected).mean(dim=1)
        best, place = reached.min(dim=1)
        rows = torch.arange(n, device=best.device) * swaps + place
        better = best < self.objective(stand)
        return (
            Stand(
                ids=torch.where(better[:, None], seen.ids[rows], stand.ids),
                losses=torch.where(better, seen.losses[rows], stand.losses),
                unlikelihoods=torch.where(better, seen.unlikelihoods[rows], stand.unlikelihoods),
            ),
            gap,
        )

    def propose(self, stand: Stand, uniform: Tensor) -> Proposals:
        """Return random ones of the most promising exchanges of a single token, from one gradient of each text."""
        n, lengths = len(stand.ids), stand.lengths
        ids = stand.ids[:, None].repeat(1, self.swaps, 1)
        expected = torch.zeros(n, self.swaps, device=ids.device)
        for length in sorted(set(lengths.tolist())):  # relaxed texts are read in full: those of a pass are equally long
            rows = (lengths == length).nonzero().flatten()
            for part in rows.split(self.runtime.tile):
                texts = stand.ids[part][:, :length]
                place, token, change = self._drawn(texts, self._changes(texts, part), uniform[part])
                ids[part] = ids[part].scatter(2, place[:, :, None], token[:, :, None])
                expected[part] = change
        return Proposals(ids=ids, expected=expected)

    def _drawn(self, ids: Tensor, changes: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return places, tokens and expected changes (B, swaps), drawn evenly among the best of each place.

        A place that may not change, or a token that may not be put in, leaves the text as it is.
        """
        k = min(self.candidates, changes.shape[2])
        values, tokens = changes.topk(k, dim=2, largest=False)
        length = changes.shape[1]
        place = (uniform[:, :, 0] * length).long().clamp(max=length - 1)
        choice = place * k + (uniform[:, :, 1] * k).long().clamp(max=k - 1)
        change = values.flatten(1).gather(1, choice)
        token = torch.where(change.isfinite(), tokens.flatten(1).gather(1, choice), ids.gather(1, place))
        return place, token, change.nan_to_num(posinf=0.0)

    def _changes(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Return the first-order change of the objective by every exchange, (B, T, V); infinite where forbidden."""
        count, tile = len(ids), self.runtime.tile
        order = torch.cat([torch.arange(count), torch.zeros(tile - count, dtype=torch.int64)]).to(ids.device)
        shown, labels = ids[order], self.labels[rows][order]
        relaxed = functional.one_hot(shown, self.prior.module.network.size.vocabulary).float().requires_grad_()
        owners = [self.owners[row] for row in rows.tolist()]
        with self.target.ledger.owned_by(owners, padding=tile - count, rows=tile):
            logits = self.target.module(relaxed).float()
            losses = functional.cross_entropy(logits, labels, reduction="sum")
            (gradient,) = torch.autograd.grad(losses, relaxed)
        slope = gradient - self.fluency / shown.shape[1] * self._following(shown)
        changes = (slope - slope.gather(2, shown[:, :, None]))[:count]
        changes = changes.index_fill(2, self.special, torch.inf)
        fixed = torch.isin(shown[:count], self.special)
        return changes.masked_fill(fixed[:, :, None], torch.inf)

    @torch.no_grad()
    def _following(self, ids: Tensor) -> Tensor:
        """Return the prior's log-probability of every token at every place, given what stands before, (B, T, V)."""
        network = self.prior.module.network
        begin = torch.full((len(ids), 1), BEGIN_ID, device=ids.device)
        states, _ = network(network.embed(torch.cat([begin, ids[:, :-1]], dim=1)))
        found: Tensor = network.logits(states).log_softmax(dim=2)
        return found

    def _seen(self, texts: Sequence[str], labels: Tensor, owners: Sequence[str]) -> Stand:
        """Return texts as the target reads them once they are written out, with their exact losses."""
        ids = self.prior.encode(texts, self.width).to(labels.device)
        tile = self.runtime.tile
        losses = tiled(self._class_losses, tile, ids, labels, ledger=self.target.ledger, owners=owners)
        return Stand(ids=ids, losses=losses, unlikelihoods=tiled(self.prior.module.task_loss, tile, ids, labels))

    def _class_losses(self, ids: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(self.target.module(ids).float(), labels, reduction="none")
