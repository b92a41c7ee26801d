"""What micore reads at start-up; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import AttackSpec, DatasetSpec, DefenseSpec, EvaluatorSpec
from micore.threat import Access


@hookimpl
def mi_attacks() -> Iterable[AttackSpec]:
    return [
        AttackSpec(
            name="acme-climb",
            target="acme_inversion.attack:AcmeClimb",
            summary="Gradient ascent on smooth pictures, from noise",
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
        )
    ]


@hookimpl
def mi_defenses() -> Iterable[DefenseSpec]:
    return [
        DefenseSpec(
            name="acme-cap",
            target="acme_inversion.defense:AcmeCap",
            summary="No answer is surer than a cap",
            stages=("inference",),
        )
    ]


@hookimpl
def mi_evaluators() -> Iterable[EvaluatorSpec]:
    return [
        EvaluatorSpec(
            name="acme-memory",
            target="acme_inversion.evaluator:AcmeMemory",
            summary="Share of reconstructions nearer to private than to held-out samples of their class",
            modality="image",
            goals=("class",),
            needs=("private",),
        )
    ]


@hookimpl
def mi_datasets() -> Iterable[DatasetSpec]:
    return [
        DatasetSpec(
            name="acme-rings",
            target="acme_inversion.dataset:open_rings",
            summary="Drawn rings, of another radius for each class",
            modality="image",
            licence="CC0-1.0",
            bundled=True,
        )
    ]
