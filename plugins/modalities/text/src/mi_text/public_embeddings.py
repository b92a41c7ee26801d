"""What the adversary knows of an encoder: public texts with their embeddings, and how they serve without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mi_text.asking import BATCH, embed
from mi_text.evidence import Observed, evidence_of
from micore.contracts import Case, Reconstruction, Split
from micore.errors import UsageError
from micore.kit.stages import shared, tensor_digest
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access

PROBES = 16
"""Public texts whose answers tell one target from another, so that two attacks on one target ask it once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Public texts and their embeddings, float32 (N, d), on the CPU."""

    texts: tuple[str, ...]
    embeddings: Tensor


def public_pairs(target: Target, public: Split | None, limit: int | None, runtime: Runtime) -> Pairs:
    """Return the first public texts, each once, with what the target answers to them; each is a query.

    Answers that another attack of the same seed got of the same target are taken from the runtime's shelf; they are
    charged all the same, as every attack is judged by what it needs.

    Raises: UsageError without public texts.
    """
    if public is None or len(public) == 0:
        raise UsageError("this attack learns from public texts", hint="give a data set that has them")
    texts = tuple(dict.fromkeys(public.take(range(len(public)))))[:limit]
    probes = embed(target, texts[:PROBES], BATCH).cpu()
    identity = {"answers": tensor_digest(probes), "texts": list(texts), "access": target.access.label}
    before = target.ledger.total.queries

    def ask(_: Runtime) -> dict[str, Tensor]:
        return {"embeddings": torch.cat([probes, embed(target, texts[PROBES:]).cpu()]) if texts[PROBES:] else probes}

    found = shared("public-embeddings", identity, ask, runtime)["embeddings"]
    unpaid = len(texts) - len(probes) - (target.ledger.total.queries - before)
    target.ledger.charge(queries=max(0, unpaid), access=Access.SCORES)
    return Pairs(texts=texts, embeddings=found.float())


def observed_embeddings(cases: Sequence[Case], width: int | None = None) -> Tensor:
    """Return the embeddings that the adversary holds of cases, (cases, d).

    Raises: UsageError when a case holds none, or one of another width than the attack was prepared for.
    """
    found = torch.stack([evidence_of(case, Observed).values for case in cases])
    if width is not None and found.shape[1] != width:
        raise UsageError(
            f"the evidence has {found.shape[1]} dimensions; the attack was prepared for {width}",
            hint="prepare it for the encoder that the evidence comes from",
        )
    return found


def nearest_texts(queries: Tensor, pairs: Pairs, k: int = 1) -> list[list[str]]:
    """Return for each embedding (N, d) the k public texts with the highest cosine, best first."""
    unit = functional.normalize(pairs.embeddings, dim=1)
    k = min(k, len(unit))
    rows = [(functional.normalize(part, dim=1) @ unit.T).topk(k, dim=1).indices for part in queries.cpu().split(1024)]
    return [[pairs.texts[index] for index in row] for row in torch.cat(rows).tolist()]


def nearest_public(cases: Sequence[Case], pairs: Pairs) -> list[Reconstruction]:
    """Return for each case the public text whose embedding is nearest: what retrieval alone recovers."""
    found = nearest_texts(observed_embeddings(cases), pairs)
    return [
        Reconstruction(case=case, samples=texts, scores=torch.zeros(len(texts)))
        for case, texts in zip(cases, found, strict=True)
    ]
