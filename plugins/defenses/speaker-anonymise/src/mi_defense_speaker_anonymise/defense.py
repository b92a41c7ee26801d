"""Speaker anonymisation of the voiceprints that a target answers with.

Tomashenko et al.: "The VoicePrivacy 2020 Challenge: Results and findings", Computer Speech and Language 2022
(arXiv:2109.00648), whose baseline B1 is ``method=pool``. ``method=rotation`` is the cancelable biometrics attacked by
Champion, Thebaud, Le Lan, Larcher, Jouvet: "On the invertibility of a voice privacy system using embedding alignment",
ASRU 2021 (arXiv:2110.05431).

Threat model: an adversary who is given voiceprints; one who has the weights is not hindered.

- rotation: all voiceprints are turned by the same secret orthogonal matrix. Their angles to each other stay, so that
  speakers are verified as before among turned voiceprints, and linked as before by anyone. Who knows as many of them
  with and without the turn as there are dimensions finds it exactly (Procrustes), and with fewer in part.
- pool: each voiceprint is replaced by the mean of some that are far from it. It is no longer the speaker's; what is
  left is what the choice tells.

Fidelity notes (B1 / here)
- The pool's distance is PLDA's, its voiceprints are x-vectors of 1,160 speakers / cosine, the target's own voiceprints
  of the data's public speakers, each by its mean; where these are not told apart, of each of their clips.
- 100 at random of the 200 farthest, once for each speaker / for each clip, fixed by a secret key and the clip: who asks
  twice gets the same. Of a smaller pool than 400 the farther half, and a share of these.
- B1 then makes speech of the new voiceprint; here the voiceprint is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mi_defense_speaker_anonymise.voiceprints import linked, replaced, rotation, speaker_means
from micore.answers import is_classifier
from micore.contracts import Config, Defense, Fitting, Samples, Split
from micore.errors import ModelError
from micore.kit.keyed_noise import KeyedNoise, draw_key
from micore.kit.training import placed
from micore.utility import NEIGHBOURS, neighbour_overlap

BATCH = 64
MOST_COMPARED = 500
"""Private clips among which neighbours are looked for."""
LEAST_POOL = 4


class SpeakerAnonymisationConfig(Config):
    """Settings of the defense."""

    method: Literal["rotation", "pool"] = Field(
        "rotation", description="rotation: by a secret key, speakers stay linked; pool: means of other speakers"
    )
    farthest: int = Field(200, ge=2, description="pool: the farthest voiceprints among which is drawn; B1: 200")
    chosen: int = Field(100, ge=1, description="pool: how many of these make up the new one; B1: 100")
    pool_clips: int = Field(5000, ge=4, description="pool: public clips at most, of which it is made")

    @model_validator(mode="after")
    def _chosen_of_the_farthest(self) -> Self:
        if self.chosen > self.farthest:
            raise ValueError(f"chosen={self.chosen} of the farthest={self.farthest}: it must not be more")
        return self


class SpeakerAnonymisation(Defense):
    """Answer with voiceprints that are not the speakers' own."""

    Config: ClassVar[type[Config]] = SpeakerAnonymisationConfig
    config: SpeakerAnonymisationConfig

    def __init__(self, config: SpeakerAnonymisationConfig) -> None:
        super().__init__(config)
        self._lots = KeyedNoise()
        self._table: Tensor | None = None  # the rotation (d, d), or the pool (P, d)
        self._facts: dict[str, Any] = {}

    def fit(self, fitting: Fitting) -> None:
        """Draw the key, gather the pool, and look what of the private clips' voiceprints stays.

        Raises: ModelError for a target that answers with no voiceprints, or without a pool of public speakers.
        """
        if is_classifier(fitting.module):
            raise ModelError(
                "speaker-anonymise changes voiceprints, and the target answers with classes",
                hint="a target of role encoder; for training audio there is mcadams",
            )
        self._lots.draw_key()
        rows = torch.linspace(0, len(fitting.reference) - 1, min(MOST_COMPARED, len(fitting.reference))).long()
        raw = self._answers(fitting, fitting.reference, rows)
        self._table = rotation(draw_key(), raw.shape[1]) if self.config.method == "rotation" else self._pool(fitting)
        self._facts = self._costs(fitting, rows, raw)

    def _pool(self, fitting: Fitting) -> Tensor:
        public = fitting.public
        if public is None or len(public) < LEAST_POOL:
            raise ModelError(
                f"speaker-anonymise: method=pool needs {LEAST_POOL} public clips or more, and the data have "
                f"{0 if public is None else len(public)}",
                hint="method=rotation, or a data set with other speakers",
            )
        rows = torch.linspace(0, len(public) - 1, min(self.config.pool_clips, len(public))).long()
        prints = self._answers(fitting, public, rows)
        speakers = None if public.labels is None else public.labels[rows]
        if speakers is None or len(speakers.unique()) < LEAST_POOL:
            return prints  # nobody knows who speaks, as where all are "somebody else"
        return speaker_means(prints, speakers)

    def _answers(self, fitting: Fitting, split: Split, rows: Tensor) -> Tensor:
        parts = [fitting.answer(placed(split.take(part), fitting.runtime)).float().cpu() for part in rows.split(BATCH)]
        return torch.cat(parts)

    def _costs(self, fitting: Fitting, rows: Tensor, raw: Tensor) -> dict[str, Any]:
        """Return what is lost among the reference's voiceprints."""
        given = torch.cat([
            self._changed(prints, fitting.reference.take(part))
            for prints, part in zip(raw.split(BATCH), rows.split(BATCH), strict=True)
        ])  # fmt: skip
        cosine = torch.nn.functional.cosine_similarity(raw, given, dim=1).mean()
        found: dict[str, Any] = {"mean_cosine": round(float(cosine), 4)}
        if self.config.method == "pool" and self._table is not None:
            found["pool"] = len(self._table)
        if len(raw) > NEIGHBOURS:
            found["neighbour_overlap"] = round(neighbour_overlap(raw, given), 4)
        if fitting.reference.labels is not None and len(raw) > 1:
            speakers = fitting.reference.labels[rows]
            found |= {"linked": round(linked(given, speakers), 4), "linked_before": round(linked(raw, speakers), 4)}
        return found

    def state(self) -> Mapping[str, Tensor]:
        """Return the key, and the rotation or the pool; nothing before they are made."""
        return {} if self._table is None else {**self._lots.state(), self.config.method: self._table.cpu()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take them back.

        Raises: ModelError when they are not there.
        """
        table = state.get(self.config.method)
        if table is None or table.ndim != 2:
            raise ModelError(
                f"the stored state holds no {self.config.method}", hint="train the target again, or `mi defend` it"
            )
        self._lots.load_state(state)
        self._table = table

    def facts(self) -> Mapping[str, Any]:
        """Return what it costs: neighbours kept, and how many private clips are nearest to one of the same speaker."""
        return dict(self._facts)

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return other voiceprints (N, d).

        Raises: ModelError before there is a key.
        """
        return self._changed(scores, inputs)

    def _changed(self, prints: Tensor, inputs: Samples) -> Tensor:
        if self._table is None:
            raise ModelError("speaker-anonymise has no key yet", hint="fit the defense, or load its state")
        self._table = self._table.to(prints.device)
        if self.config.method == "rotation":
            return prints @ self._table.T.to(prints.dtype)
        farthest, chosen = self._numbers(len(self._table))
        return replaced(prints, self._table, self._lots.uniforms(inputs, prints, farthest), farthest, chosen)

    def _numbers(self, pool: int) -> tuple[int, int]:
        """Return how many of a pool are far, and how many of these are taken: the farther half of a small pool."""
        farthest = min(self.config.farthest, pool // 2)
        return farthest, max(1, round(self.config.chosen * farthest / self.config.farthest))
