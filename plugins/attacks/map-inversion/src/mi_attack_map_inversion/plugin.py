"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access

BLACK_BOX = "Fredrikson et al., USENIX Security 2014"
WHITE_BOX = "Fredrikson et al., CCS 2015"


@hookimpl
def mi_attacks() -> Iterable[AttackSpec]:
    """Describe the attacks."""
    return [
        AttackSpec(
            name="map-inversion", target="mi_attack_map_inversion.attack:MapInversion", modality="tabular",
            summary="The sensitive value that is likeliest by its frequency and by the target's errors",
            paper=BLACK_BOX, goal="attribute", access=Access.LABEL, needs=("public",), status="experimental",
        ),
        AttackSpec(
            name="map-inversion-wb", target="mi_attack_map_inversion.white_box:CountInversion", modality="tabular",
            summary="The same, by how many training rows a tree's leaves hold: with counts",
            paper=WHITE_BOX, goal="attribute", access=Access.WHITE_BOX, status="experimental",
        ),
    ]  # fmt: skip
