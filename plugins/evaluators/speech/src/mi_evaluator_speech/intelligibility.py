"""Is anything said? What a recogniser, which is not under attack, makes of what was recovered.

A recogniser of digits writes nothing, or is unsure, where no digits are said; held-out speech tells how sure it can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mi_audio.adapter import RATE, AudioAdapter
from mi_audio.builders import recogniser
from mi_audio.recogniser import Recogniser
from micore.artifacts import Bundle
from micore.contracts import Reference
from micore.errors import ModelError
from micore.kit.measuring import Figure
from micore.runtime import Runtime

ROLE = "recogniser"


@dataclass(frozen=True)
class Listener:
    """A recogniser with the conversion to its input."""

    network: Recogniser
    adapter: AudioAdapter
    name: str

    @torch.no_grad()
    def heard(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Return for clips (N, length) how sure it is of the letters it writes, and how many it writes a second, (N,).

        Sure: the geometric mean of the probabilities of the frames at which letters begin; 0 where it writes nothing.
        """
        frames = self.network.log_posteriors(self.adapter(clips))
        best = frames.max(dim=2)
        before = torch.nn.functional.pad(best.indices, (1, 0))[:, :-1]
        begins = (best.indices != 0) & (best.indices != before)
        count = begins.sum(dim=1)
        sure = (best.values.masked_fill(~begins, 0.0).sum(dim=1) / count.clamp(min=1)).exp()
        return sure.masked_fill(count == 0, 0.0).cpu(), (count / (clips.shape[1] / RATE)).cpu()


def load_listener(path: Path, reference: Reference, runtime: Runtime) -> Listener:
    """Load a bundle of a recogniser.

    Raises: ModelError when it is none, is defended, or is the target itself.
    """
    bundle = Bundle.load(path)
    card = bundle.card
    if card.role != ROLE or card.defenses:
        raise ModelError(f"{path} is a {card.role}, or defended: no recogniser that could judge", hint="train one")
    if reference.target is not None and bundle.fingerprint == reference.target.fingerprint:
        raise ModelError(f"{path} is the target itself: it would grade its own attack", hint="train another one")
    network = recogniser(len(card.classes), card.input, **dict(card.model.config))
    network.load_state_dict(dict(bundle.weights))
    runtime.place(network).eval().requires_grad_(False)
    return Listener(network, AudioAdapter(card.input), bundle.fingerprint[:12])


def intelligibility(clips: list[Tensor], listener: Listener) -> list[Figure]:
    """Return how sure the recogniser is of what it writes, and how much it writes, for batches of clips."""
    parts = [listener.heard(batch.nan_to_num()) for batch in clips]
    finite = torch.cat([batch.isfinite().all(dim=1) for batch in clips]).cpu()
    notes = (f"heard by recogniser {listener.name}",)
    sure, written = (torch.cat(values).masked_fill(~finite, torch.nan) for values in zip(*parts, strict=True))
    return [
        Figure("intelligible", sure, "probability", "none", notes),
        Figure("letters-a-second", written, "letters", "none", notes),
    ]
