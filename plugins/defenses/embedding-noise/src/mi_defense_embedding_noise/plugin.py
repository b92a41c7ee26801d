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
            name="embedding-noise",
            target="mi_defense_embedding_noise.defense:EmbeddingNoise",
            summary="Add Gaussian noise to embeddings, of texts or nodes, fixed by a secret key and the sample",
            paper="Morris et al., EMNLP 2023 (arXiv:2310.06816)",
            modality=ANY,
            stages=("inference",),
            roles=("encoder", "gnn"),
        )
    ]
