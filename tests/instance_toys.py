"""A small attack on masked images, with the toy data of that goal: what tests of goal ``instance`` run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_image.corruptions import EvidenceKind, paste, stack_evidence
from mi_image.toy import masked_toy
from micore.contracts import Case, Config, Dataset, Prepared, Reconstruction
from micore.hookspecs import hookimpl
from micore.registry import Registry
from micore.runtime import Runtime
from micore.specs import AttackSpec, DatasetSpec
from micore.target import Target
from micore.threat import Access

HERE = "tests.instance_toys"


class RetrievalConfig(Config):
    """What the toy attack does."""

    evidence: EvidenceKind = Field("centre", description="what the adversary holds of each image")
    tries: int = Field(64, ge=2, description="public images that are tried in the hidden part")
    restarts: int = Field(2, ge=1, description="completions that are given back")


class Retrieval:
    """Complete masked images with public ones that the target likes; no paper, it is a toy.

    The class is guessed from the mean answer to all completions; then those win that look most like it.
    """

    Config: ClassVar = RetrievalConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "smoke": {}, "paper": {"tries": 256}}
    PREPARE_FIELDS: ClassVar = frozenset({"evidence"})

    def __init__(self, config: RetrievalConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Any, runtime: Runtime) -> Prepared:
        """Keep the public images."""
        return Prepared(state={"public": public.take(torch.arange(len(public)))})

    def control(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Iterator[Reconstruction]:
        """Complete with public images at random."""
        for case in cases:
            found = self._completions(case, prepared, "no-target", runtime)[: self.config.restarts]
            yield Reconstruction(case=case, samples=found, scores=torch.zeros(len(found), device=runtime.device))

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Ask the target about the completions of one case after the other."""
        for case in cases:
            completions = self._completions(case, prepared, "tries", runtime)
            with target.ledger.owned_by([case.id]):
                scores = target.scores(completions)
            label = scores.mean(dim=0).argmax()
            best = scores[:, label].sort(descending=True, stable=True)
            order = best.indices[: self.config.restarts]
            yield Reconstruction(case=case, samples=completions[order], scores=best.values[: self.config.restarts])

    def _completions(self, case: Case, prepared: Prepared | None, purpose: str, runtime: Runtime) -> Tensor:
        images, masks = stack_evidence([case], self.config.evidence, runtime.device)
        public = (prepared.state if prepared else {})["public"].to(runtime.device)
        rows = runtime.rng(purpose, case.id).permutation(len(public))[: self.config.tries]
        return paste(public[rows.to(runtime.device)], images, masks)


def open_keyed(location: str | None, **options: Any) -> Dataset:
    """Open the toy data of goal ``instance``."""
    return masked_toy().dataset


class InstancePlugin:
    """The toy attack and its data."""

    @hookimpl
    def mi_datasets(self) -> list[DatasetSpec]:
        """Offer the data."""
        return [
            DatasetSpec(
                name="keyed", target=f"{HERE}:open_keyed", summary="Toy data", modality="image", licence="none",
                bundled=True,
            )
        ]  # fmt: skip

    @hookimpl
    def mi_attacks(self) -> list[AttackSpec]:
        """Offer the attack."""
        return [
            AttackSpec(
                name="retrieval", target=f"{HERE}:Retrieval", summary="Toy attack on instances", modality="image",
                goal="instance", access=Access.SCORES, needs=("public", "evidence"),
            )
        ]  # fmt: skip


def registry() -> Registry:
    """Return a registry of the image modality, the evaluators and the toys."""
    import mi_evaluator_accuracy.plugin
    import mi_evaluator_distance.plugin
    import mi_evaluator_paired.plugin
    import mi_image.plugin

    return Registry.from_plugins(
        {
            "image": mi_image.plugin,
            "accuracy": mi_evaluator_accuracy.plugin,
            "distance": mi_evaluator_distance.plugin,
            "paired": mi_evaluator_paired.plugin,
            "toys": InstancePlugin(),
        }
    )
