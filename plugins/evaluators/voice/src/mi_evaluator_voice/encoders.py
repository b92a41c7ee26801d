"""The encoder that judges: the published one where its weights are, or else the features of the evaluator model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from mi_audio.ge2e import has_weights, pretrained, weights_file
from micore.contracts import IDENTITY_DIGITS, Reference
from micore.errors import ModelError
from micore.files import file_digest
from micore.kit.features import features_and_logits
from micore.runtime import Runtime

Choice = Literal["auto", "ge2e", "judge"]
GE2E = "ge2e"


@dataclass(frozen=True, slots=True)
class Encoder:
    """embed: waveforms (B, length) on any device to voiceprints (B, d) on the CPU, float64, of length 1.

    identity: tells its figures from those of another one; note: which one it is, and what to read its figures with.
    """

    embed: Callable[[Tensor], Tensor]
    identity: str
    notes: tuple[str, ...]


def chosen_encoder(choice: Choice, reference: Reference, runtime: Runtime) -> Encoder:
    """Return the encoder of a run.

    auto: the published encoder unless it is the target or has no weights here. Raises: ModelError when the choice is
    the target itself, there are no weights, or no evaluator model.
    """
    attacked = is_attacked(reference)
    if choice == "auto":
        reason = f"{GE2E} is the target" if attacked else "" if has_weights() else f"no weights of {GE2E} here"
        return of_judge(reference, runtime, reason) if reason else published(runtime)
    if choice == "judge":
        return of_judge(reference, runtime, "as was asked for")
    if attacked:
        raise ModelError(
            f"voice: {GE2E} is the target, and no judge of what was recovered from itself",
            hint="encoder=judge, or leave it out",
        )
    return published(runtime)


def is_attacked(reference: Reference) -> bool:
    """Tell whether the target is the published encoder, with or without defenses."""
    return reference.target is not None and reference.target.card.model.name == GE2E


def published(runtime: Runtime) -> Encoder:
    """Return the published encoder."""
    network = runtime.place(pretrained().requires_grad_(False))
    note = f"speaker encoder: {GE2E}, published, which learned from other speakers"
    return Encoder(_embedding(network, runtime), file_digest(weights_file())[:IDENTITY_DIGITS], (note,))


def of_judge(reference: Reference, runtime: Runtime, reason: str) -> Encoder:
    """Return the penultimate features of the evaluator model, which learned the private speakers themselves."""
    judge = reference.judge()

    def features(waveforms: Tensor) -> Tensor:
        return features_and_logits(judge.module, judge.adapter(waveforms).to(runtime.device))[0]

    name = judge.bundle.card.model.name
    note = f"speaker encoder: features of the evaluator model {name} ({reason})"
    return Encoder(_embedding(features, runtime), judge.identity, (note, *judge.notes))


def _embedding(network: Callable[[Tensor], Tensor], runtime: Runtime) -> Callable[[Tensor], Tensor]:
    @torch.no_grad()
    def embed(waveforms: Tensor) -> Tensor:
        return functional.normalize(network(waveforms.to(runtime.device)).double().cpu(), dim=1)

    return embed
