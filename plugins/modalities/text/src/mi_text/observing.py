"""Evidence that the target itself gives: what its owner got for a private text, and the adversary came to hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mi_text.asking import embed, generate
from mi_text.cases import row_of, text_split
from mi_text.evidence import INSTANCE_KINDS, PROMPT_KINDS, Observed, Outputs
from mi_text.sampling import Sampling
from micore.contracts import Case, Dataset
from micore.runtime import Random, derive_seed
from micore.target import Target

N_OUTPUTS = 16
"""How many outputs of each prompt the adversary holds."""

OBSERVED = (*INSTANCE_KINDS, *PROMPT_KINDS)

SAMPLED = Sampling(max_tokens=24, temperature=1.0)


def observed(cases: Sequence[Case], dataset: Dataset, target: Target) -> list[Case]:
    """Return cases whose evidence is an answer with that answer; others as they are.

    Outputs are drawn by a stream that depends on the text alone, so that a run that goes on holds the same.
    """
    asked = [case for case in cases if _kind(case) in OBSERVED]
    if not asked:
        return list(cases)
    private = text_split(dataset, "private")
    texts = [private.texts[row_of(case)] for case in asked]
    kind = _kind(asked[0])
    evidence = _outputs(texts, target) if kind == "outputs" else _answers(kind, texts, target)
    held = {case.id: item for case, item in zip(asked, evidence, strict=True)}
    return [replace(case, evidence=held[case.id]) if case.id in held else case for case in cases]


def _kind(case: Case) -> str:
    return case.id.rpartition("-")[0]


def _answers(kind: str, texts: Sequence[str], target: Target) -> list[Observed]:
    return [Observed(kind=kind, values=values.float().cpu().clone()) for values in embed(target, texts)]


def _outputs(texts: Sequence[str], target: Target) -> list[Outputs]:
    found = []
    for text in texts:
        rng = Random(derive_seed("outputs", text))
        outputs = generate(target, [text] * N_OUTPUTS, SAMPLED, rng)
        found.append(Outputs(texts=tuple(output.strip() for output in outputs)))
    return found
