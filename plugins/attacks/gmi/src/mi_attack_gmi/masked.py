"""GMI's variant with auxiliary knowledge: the class of a partly hidden image is not all, the image itself is sought.

Zhang et al.: "The Secret Revealer" (CVPR 2020, arXiv:1911.07135), with auxiliary knowledge: the attacker holds a
corrupted copy of a private image.

Threat model: white box, unlabelled public images, a private image of which a part is hidden or blurred.

1. A completion network is trained on corrupted public images: two Wasserstein critics, a term that ties the visible
   part to the evidence, and a term that rewards completions that the target's features tell apart.
2. The target is asked about random completions of the evidence: the class with the largest mean probability is
   guessed.
3. Latents are searched whose completions look real to the critics and like the guessed class to the target.

Fidelity notes (paper / authors' code / here)
- The paper gives the attacker the class of the hidden image. Here nobody does: step 2 is ours, the simplest guess.
  SecretGen, a plugin of its own, is the elaborate one.
- Network, critics and their training: `mi_image.inpainting`, `mi_image.inpainting_training`.
- Hidden pixels are grey (0.5), not a data set's mean colour; completions show the evidence wherever it is not hidden.
- Update, box, summed losses and ``batch``: as in `mi_attack_gmi.attack`.
- The presets ``default`` and ``smoke`` are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from mi_image.completion_prior import (
    BY_PIXELS,
    COMPLETION_FIELDS,
    SMALL,
    SMOKE,
    CompletionConfig,
    completion_cost,
    prepare_completion,
)
from mi_image.completion_search import (
    Ground,
    Refinement,
    ask,
    complete_unguided,
    give_back,
    give_back_guesses,
    guesses,
    open_ground,
    probabilities,
)
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.latent_objective import identity_of
from micore.kit.losses import cross_entropy
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access, Spending


class MaskedInversionConfig(CompletionConfig):
    """Settings of GMI's masked variant; the defaults of single fields are the authors', presets change them."""

    evidence_weight: float = Field(
        1.0, ge=0, description="of the difference to what the evidence shows, summed over pixels (code: 1)"
    )
    guesses: int = Field(32, ge=1, description="random completions from which the class is guessed (ours)")
    steps: int = Field(1500, ge=0, description="steps of the search (code: 1500)")
    learning_rate: float = Field(0.02, gt=0, description="of the search (code: 0.02)")
    batch: int = Field(60, ge=1, description="rows over which the authors' loss is a mean: divides the learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="of the search (code: 0.9)")
    box: float = Field(1.0, gt=0, description="largest absolute value of a latent, after each step (code: 1)")
    identity_weight: float = Field(100.0, ge=0, description="weight of the target's cross-entropy (paper lambda: 100)")
    restarts: int = Field(5, ge=1, description="completions per image (code: 5)")


class MaskedInversion:
    """GMI's masked variant (see the module's documentation)."""

    Config: ClassVar[type[Config]] = MaskedInversionConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {**SMALL, **BY_PIXELS, "evidence_weight": 0.02, "steps": 150, "batch": 1},
        "smoke": {**SMOKE, "evidence_weight": 0.02, "guesses": 8, "steps": 10, "batch": 1, "restarts": 2},
        "paper": {},
    }
    PREPARE_FIELDS: ClassVar[frozenset[str]] = COMPLETION_FIELDS

    def __init__(self, config: MaskedInversionConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train the completion network on hidden public images (see `prepare_completion` for what it raises)."""
        return prepare_completion("gmi-masked", self.config, target, public, runtime)

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Guess the class of every case, then search completions of that class."""
        config, ground = self.config, self._ground(cases, prepared, runtime)
        answer = probabilities(target, Access.WHITE_BOX)
        drawn = ground.latents(config.guesses, "guesses", config.box)
        answers = ask(ground, drawn, answer, target.n_classes, target.ledger)
        labels = guesses(answers)
        if not answers.enough:
            yield from give_back_guesses(ground, drawn, answers, labels)
        starts = ground.latents(config.restarts, "latents")
        refinement = Refinement(
            steps=config.steps, learning_rate=config.learning_rate / config.batch, momentum=config.momentum,
            box=config.box, identity_weight=config.identity_weight, evidence_weight=config.evidence_weight,
        )  # fmt: skip
        identity = identity_of(target.module, cross_entropy)
        rows, found = refinement.run(ground, starts, labels, identity, target.ledger)
        yield from give_back(ground, rows, found, answer, target.ledger)

    def control(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Iterator[Reconstruction]:
        """Complete the cases at random; the network itself was trained with the target's features."""
        ground = self._ground(cases, prepared, runtime)
        yield from complete_unguided(ground, self.config.restarts, self.config.box)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: features in training, the guess, the search and a last look."""
        config = self.config
        steps = config.restarts * config.steps
        per_case = Spending(queries=config.guesses + steps + config.restarts, gradients=steps)
        return Forecast(preparation=completion_cost(config), per_case=per_case)

    def _ground(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Ground:
        if prepared is None:
            raise DataError("gmi-masked was not prepared")
        return open_ground(prepared.state, cases, self.config.evidence, runtime)
