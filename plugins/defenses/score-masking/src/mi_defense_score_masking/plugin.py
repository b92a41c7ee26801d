"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import ANY, DefenseSpec

PACKAGE = "mi_defense_score_masking"


@hookimpl
def mi_defenses() -> Iterable[DefenseSpec]:
    """Describe the defenses."""
    return [
        _masking(
            "round-scores", "truncation:RoundScores", "Answer with rounded scores",
            "Fredrikson et al., CCS 2015 (doi:10.1145/2810103.2813677)",
        ),
        _masking(
            "top-k", "truncation:TopK", "Answer with the largest scores only",
            "Shokri et al., S&P 2017 (arXiv:1610.05820)",
        ),
        _masking(
            "label-only", "truncation:LabelOnly", "Answer with the most likely class only",
            "Shokri et al., S&P 2017 (arXiv:1610.05820)",
        ),
        _masking(
            "temperature", "shaping:Temperature", "Flatten the scores by a temperature",
            "Shokri et al., S&P 2017 (arXiv:1610.05820)",
        ),
        _masking(
            "output-noise", "noise:OutputNoise", "Add noise to the scores, fixed by a secret key and the sample",
            "common practice; no single source",
        ),
        _masking(
            "reverse-sigmoid", "shaping:ReverseSigmoid", "Bend the scores so that many inputs explain one answer",
            "Lee et al., 2018 (arXiv:1806.00054)",
        ),
        _masking(
            "order-noise", "noise:OrderNoise", "Draw each score anew between its neighbours: the order stays",
            "Ye et al., 2022 (arXiv:2203.06580); rebuilt, not the authors' mechanism",
        ),
    ]  # fmt: skip


def _masking(name: str, target: str, summary: str, paper: str) -> DefenseSpec:
    return DefenseSpec(
        name=name, target=f"{PACKAGE}.{target}", summary=summary, paper=paper, modality=ANY, stages=("inference",)
    )
