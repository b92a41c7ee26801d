"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access

PAPER = "Mehnaz et al., USENIX Security 2022 (arXiv:2201.09370)"


@hookimpl
def mi_attacks() -> Iterable[AttackSpec]:
    """Describe the attacks."""
    return [
        AttackSpec(
            name="csmia", target="mi_attack_confidence_inversion.attack:ConfidenceScore", modality="tabular",
            summary="The sensitive value with which the target is right, or surest, or least sure to be wrong",
            paper=PAPER, goal="attribute", access=Access.SCORES, status="experimental",
        ),
        AttackSpec(
            name="lomia", target="mi_attack_confidence_inversion.label_only:LabelOnly", modality="tabular",
            summary="By labels alone: a model learned from rows on which one value alone makes the target right",
            paper=PAPER, goal="attribute", access=Access.LABEL, needs=("public",), status="experimental",
        ),
    ]  # fmt: skip
