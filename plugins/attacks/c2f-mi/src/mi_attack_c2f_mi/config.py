"""The settings of C2F-MI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from mi_attack_c2f_mi.embedding import EmbeddingSettings
from mi_attack_c2f_mi.inverse import InverseSettings
from mi_image import stylegan_attacks
from mi_image.stylegan_attacks import SMALL, TINY, StylePriorConfig

__all__ = ["PREPARE_FIELDS", "PRESETS", "CoarseToFineConfig"]

EMBEDDING: Mapping[str, str] = {
    "embedding_network": "network", "embedding_width": "width", "embedding_dims": "dims",
    "embedding_iterations": "iterations", "embedding_batch_size": "batch_size",
    "embedding_learning_rate": "learning_rate", "temperature": "temperature", "view_area": "crop_area",
    "view_flip": "flip",
}  # fmt: skip
INVERSE: Mapping[str, str] = {
    "kept_scores": "kept", "hidden": "hidden", "dropout": "dropout", "inverse_epochs": "epochs",
    "inverse_batch_size": "batch_size", "inverse_learning_rate": "learning_rate", "inverse_decay": "decay",
    "inverse_decay_every": "decay_every",
}  # fmt: skip
"""Fields of the config, and what they are called in the settings of the embedding and of the inverse network."""

OF_THE_SEARCH = {"bank", "mirror", "psi", "cutoff", "centre"}
PREPARE_FIELDS = (stylegan_attacks.PREPARE_FIELDS - OF_THE_SEARCH) | EMBEDDING.keys() | INVERSE.keys()


def _without_bank(preset: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in preset.items() if name not in ("bank", "mirror")}


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {
        **_without_bank(SMALL), "embedding_network": "small-cnn", "embedding_width": 16, "embedding_dims": 32,
        "embedding_iterations": 300, "embedding_batch_size": 64, "hidden": 128, "inverse_epochs": 60,
        "inverse_decay_every": 10, "coarse_steps": 50, "coarse_learning_rate": 0.05, "restarts": 5,
        "population": 40, "generations": 60, "difference": 0.3, "fade_last": 15,
    },
    "smoke": {
        **_without_bank(TINY), "embedding_network": "small-cnn", "embedding_width": 8, "embedding_dims": 16,
        "embedding_iterations": 40, "embedding_batch_size": 32, "hidden": 32, "inverse_epochs": 20, "latents": 8,
        "kept_latents": 5, "coarse_steps": 6, "coarse_learning_rate": 0.1, "restarts": 2, "population": 16,
        "generations": 12, "difference": 0.3, "fade_last": 4,
    },
    "paper": {"kept_scores": 1},
}  # fmt: skip


class CoarseToFineConfig(StylePriorConfig):
    """Settings of C2F-MI; the defaults of single fields are the authors' code, presets change them."""

    psi: float = Field(1.0, ge=0, description="truncation of the style codes that the search begins with; 1: none")
    bank: Literal[0] = Field(0, description="there are no candidates that the target scores for all classes")
    mirror: Literal[False] = Field(False, description="there are no candidates")
    # the public embedding network F; without labels of the public images its numbers are ours
    embedding_network: Literal["small-cnn", "small-resnet", "resnet18"] = Field(
        "resnet18", description="architecture of F (authors: InceptionResnetV1)"
    )
    embedding_width: int = Field(64, ge=1, description="channels of F's first stage")
    embedding_dims: int = Field(128, ge=2, description="length of the embedding where public images have no labels")
    embedding_iterations: int = Field(20_000, ge=1, description="steps of F's training")
    embedding_batch_size: int = Field(256, ge=2, description="images of one step, each in two views without labels")
    embedding_learning_rate: float = Field(1e-3, gt=0, description="of F's Adam")
    temperature: float = Field(0.5, gt=0, description="of the contrast between images without labels (SimCLR: 0.5)")
    view_area: float = Field(0.6, gt=0, le=1, description="smallest area of a random crop in F's training")
    view_flip: float | None = Field(
        None, ge=0, le=1, description="probability of a mirror image in F's training; none: 0.5 for colour, 0 for grey"
    )
    # the inverse network
    kept_scores: int = Field(1, ge=1, description="best scores of an answer that it sees (code: 1; defended: 100)")
    hidden: int = Field(4096, ge=1, description="hidden units of each of its two layers (code: 4096)")
    dropout: float = Field(0.25, ge=0, lt=1, description="share of units left out in training (code: 0.25)")
    inverse_epochs: int = Field(20, ge=1, description="epochs over the public images (code: 20)")
    inverse_batch_size: int = Field(128, ge=1, description="images of one step (code: 128)")
    inverse_learning_rate: float = Field(1e-3, gt=0, description="of its Adam (code: 1e-3)")
    inverse_decay: float = Field(0.8, gt=0, le=1, description="factor of the learning rate (code: 0.8)")
    inverse_decay_every: int = Field(2, ge=1, description="epochs between two such falls (code: 2)")
    # coarse search
    latents: int = Field(16, ge=1, description="style codes of each coarse search (code: 16)")
    coarse_steps: int = Field(20, ge=0, description="Adam steps by F's gradients (code: 20)")
    coarse_learning_rate: float = Field(0.02, gt=0, description="of that Adam (code: 0.02)")
    kept_latents: int = Field(10, ge=1, description="codes that begin the evolution (code: 10)")
    # evolution
    population: int = Field(32, ge=3, description="members of a population (code: 32)")
    generations: int = Field(500, ge=0, description="generations at most (code: 500)")
    pull: float = Field(0.02, ge=0, description="step towards the best member (code: 0.02)")
    difference: float = Field(0.1, ge=0, description="weight of each difference of two members (code: 0.1)")
    pairs: int = Field(4, ge=1, description="differences that are added up (code: 4)")
    fade_last: int = Field(30, ge=0, description="last generations in which the weight falls (code: 30)")
    fade_over: int = Field(50, ge=1, description="generations over which it would fall to 0 (code: 50)")
    mix: float = Field(0.5, ge=0, le=1, description="share of a rival's coordinates that are new (code: 0.5)")
    top: int | None = Field(
        None, ge=1, description="a class must be among so many best scores (code: 100 on defended targets); none: any"
    )
    enough: float | None = Field(
        None, gt=0, le=1, description="probability of the class at which an evolution ends; none: it goes on (code)"
    )
    restarts: int = Field(1, ge=1, description="populations, and so reconstructions, per class (code: 1)")

    @model_validator(mode="after")
    def _counts_fit(self) -> CoarseToFineConfig:
        if not self.kept_latents <= min(self.latents, self.population):
            found = f"kept_latents={self.kept_latents}, latents={self.latents}, population={self.population}"
            raise ValueError(f"more codes are kept than there are: {found}")
        return self

    def embedding_settings(self) -> EmbeddingSettings:
        """Return what F is and how it learns."""
        return EmbeddingSettings(**{name: getattr(self, field) for field, name in EMBEDDING.items()})

    def inverse_settings(self) -> InverseSettings:
        """Return what the inverse network is and how it learns."""
        return InverseSettings(**{name: getattr(self, field) for field, name in INVERSE.items()})
