"""What the adversary knows of an encoder of voices: public clips and what it answers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mi_audio.evidence import Voiceprint, evidence_of
from mi_audio.splits import FULL_SCALE, quantised
from micore.contracts import Case, Reconstruction, Split
from micore.errors import DataError, UsageError
from micore.kit.selection import stable_top_k
from micore.runtime import Runtime
from micore.target import Target

__all__ = ["PublicVoices", "asked", "cosines", "held", "nearest_public"]

BATCH = 64
_LEAST_DEVIATION = 1e-3
"""Of a dimension of public voiceprints, as a share of the mean one: one that tells nothing must not be blown up."""


@dataclass(frozen=True, kw_only=True)
class PublicVoices:
    """Public clips, int16 (N, length), on the CPU, and their voiceprints (N, d), on the run's device."""

    clips: Tensor
    prints: Tensor

    def waveforms(self, rows: Tensor) -> Tensor:
        """Return some clips, float32, on the CPU."""
        return self.clips[rows.cpu()].to(torch.float32) / FULL_SCALE

    def nearest(self, wanted: Tensor, k: int) -> Tensor:
        """Return the k clips whose voiceprints are nearest to each wanted one (C, d), nearest first, (C, k)."""
        unit = functional.normalize(self.prints, dim=1)
        return stable_top_k(functional.normalize(wanted, dim=1) @ unit.T, min(k, len(unit))).indices

    def standardised(self, prints: Tensor) -> Tensor:
        """Return voiceprints (n, d) by the mean and deviation of the public ones: what an inverter reads."""
        return (prints - self.prints.mean(dim=0)) / self._deviation

    def unstandardised(self, values: Tensor) -> Tensor:
        """Return the voiceprints (n, d) that were standardised."""
        return values * self._deviation + self.prints.mean(dim=0)

    @property
    def _deviation(self) -> Tensor:
        deviation = self.prints.std(dim=0)
        return deviation.maximum(_LEAST_DEVIATION * deviation.mean()).clamp(min=1e-8)

    @classmethod
    def restored(cls, state: Mapping[str, Any], runtime: Runtime) -> PublicVoices:
        """Return what `asked` gave."""
        return cls(clips=state["clips"].cpu(), prints=state["prints"].to(runtime.device))


@torch.no_grad()
def asked(target: Target, public: Split | None, limit: int | None, attack: str, runtime: Runtime) -> dict[str, Tensor]:
    """Ask the target about public clips, at most ``limit``, evenly spread; plain data. A killed work goes on.

    Raises: DataError without two public clips; BudgetExceeded.
    """
    if public is None or len(public) < 2:
        raise DataError(f"{attack} needs public clips, two at least")
    n = min(len(public), limit or len(public))
    rows = torch.arange(n) * len(public) // n
    saved = runtime.checkpoints.load()
    parts = [saved["prints"]] if saved else []
    with runtime.progress.track("asking the target about public clips", n) as report:
        while (done := sum(map(len, parts))) < n:
            parts.append(target.scores(public.take(rows[done : done + BATCH]).to(runtime.device)).float().cpu())
            report(done + len(parts[-1]))
            runtime.checkpoints.offer(lambda: {"prints": torch.cat(parts)})
    return {"clips": quantised(public.take(rows)), "prints": torch.cat(parts)}


def held(cases: Sequence[Case], width: int, runtime: Runtime) -> Tensor:
    """Return the voiceprints that the adversary holds of cases, (C, d).

    Raises: UsageError when a case holds none, or one of another width than the attack was prepared for.
    """
    found = torch.stack([evidence_of(case, Voiceprint).values for case in cases])
    if found.shape[1] != width:
        raise UsageError(
            f"the voiceprint has {found.shape[1]} dimensions; the attack was prepared for {width}",
            hint="prepare it for the encoder that the evidence comes from",
        )
    return found.to(runtime.device).float()


def cosines(prints: Tensor, wanted: Tensor) -> Tensor:
    """Return the cosine of each pair of rows, (B,), float32."""
    return functional.cosine_similarity(prints.float(), wanted.float(), dim=1)


def nearest_public(cases: Sequence[Case], voices: PublicVoices, runtime: Runtime) -> list[Reconstruction]:
    """Return for each case the public clip whose voiceprint is nearest: what retrieval alone recovers."""
    wanted = held(cases, voices.prints.shape[1], runtime)
    rows = voices.nearest(wanted, 1)[:, 0]
    clips, scores = voices.waveforms(rows), cosines(voices.prints[rows], wanted).cpu()
    return [
        Reconstruction(case=case, samples=clips[place : place + 1], scores=scores[place : place + 1])
        for place, case in enumerate(cases)
    ]
