"""Settings of the inversion of prompts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mi_attack_prompt_inversion.features import Form
from mi_text.observing import N_OUTPUTS
from micore.contracts import Config

PREPARE_FIELDS = frozenset(
    {
        "evidence", "pairs", "form", "places", "dimensions", "outputs", "output_tokens", "output_places",
        "encoder_layers", "vocabulary", "width", "layers", "heads", "steps", "batch_size", "learning_rate",
        "max_tokens",
    }
)  # fmt: skip


class InversionConfig(Config):
    """Settings of the inversion of prompts; presets change the defaults of single fields."""

    evidence: Literal["next-token", "outputs"] = Field("next-token", description="what the adversary holds of a prompt")
    pairs: int = Field(8000, ge=1, description="public prompts that the target is asked about")
    form: Form = Field("components", description="next-token: how an answer is shown to the decoder")
    places: int = Field(8, ge=1, description="next-token: vectors that an answer becomes (D1: 42 to 64)")
    dimensions: int = Field(512, ge=1, description="next-token: numbers of a projection, at most so many components")
    outputs: int = Field(16, ge=1, le=N_OUTPUTS, description="outputs: how many of each prompt are read (paper: 64)")
    output_tokens: int = Field(24, ge=1, description="outputs: tokens that are read of each")
    output_places: int = Field(2, ge=1, description="outputs: vectors that each becomes")
    encoder_layers: int = Field(2, ge=1, description="outputs: layers of the encoder")
    vocabulary: int = Field(2048, ge=300, description="largest vocabulary of the adversary's own tokenizer")
    width: int = Field(256, ge=1, description="width of the decoder; a multiple of heads")
    layers: int = Field(4, ge=1, description="layers of the decoder")
    heads: int = Field(4, ge=1, description="attention heads of the decoder")
    steps: int = Field(3000, ge=1, description="steps of the training")
    batch_size: int = Field(64, ge=1, description="prompts of one step")
    learning_rate: float = Field(1e-3, gt=0, description="of the training, after warm-up")
    max_tokens: int = Field(48, ge=1, description="longest prompt that is written")
    candidates: int = Field(
        32, ge=1, description="prompts that are written for each case: the likeliest way, and draws"
    )
    keep: int = Field(8, ge=1, description="of these given back for each case")
    verify: bool = Field(True, description="ask the target about candidates, and rank by the likeness of its answers")
    temperature: float = Field(1.0, gt=0, description="of drawing candidates")
    top_p: float = Field(0.9, gt=0, le=1, description="of drawing candidates: the nucleus")

    @model_validator(mode="after")
    def _keep_what_is_there(self) -> InversionConfig:
        if self.keep > self.candidates:
            raise ValueError(f"keep={self.keep} is more than candidates={self.candidates}")
        return self
