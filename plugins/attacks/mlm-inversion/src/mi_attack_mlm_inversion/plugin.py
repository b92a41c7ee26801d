"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access


@hookimpl
def mi_attacks() -> Iterable[AttackSpec]:
    """Describe the attack."""
    return [
        AttackSpec(
            name="mlm-inversion",
            target="mi_attack_mlm_inversion.attack:MaskedInversion",
            summary="Masked language models' memory: Gibbs sampling of hidden parts, ranked by pseudo-likelihood",
            paper="Nakamura et al., 2021 (arXiv:2101.00036); Lehman et al., NAACL 2021",
            modality="text",
            goal="corpus",
            roles=("masked-language-model",),
            access=Access.SCORES,
            needs=("public",),
        )
    ]
