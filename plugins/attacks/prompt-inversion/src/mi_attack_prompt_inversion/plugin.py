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
            name="prompt-inversion",
            target="mi_attack_prompt_inversion.attack:PromptInversion",
            summary="Hidden prompts from the next-token distribution (logit2prompt) or from outputs (output2prompt)",
            paper="Morris et al., ICLR 2024 (arXiv:2311.13647); Zhang et al., EMNLP 2024 (arXiv:2405.15012)",
            modality="text",
            goal="prompt",
            roles=("language-model",),
            access=Access.SCORES,
            needs=("public",),
        )
    ]
