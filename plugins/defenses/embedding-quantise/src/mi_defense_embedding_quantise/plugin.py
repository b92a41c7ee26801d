"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import ANY, DefenseSpec


@hookimpl
def mi_defenses() -> Iterable[DefenseSpec]:
    """Describe the defense."""
    return [
        DefenseSpec(
            name="embedding-quantise",
            target="mi_defense_embedding_quantise.defense:EmbeddingQuantisation",
            summary="Answer with embeddings of a few bits for each dimension",
            paper="common practice; no single source",
            modality=ANY,
            stages=("inference",),
            roles=("encoder",),
        )
    ]
