"""PPA: plug & play attacks.

Struppek, Hintersdorf, De Almeida Correia, Adler, Kersting: "Plug & Play Attacks: Towards Robust and Flexible Model
Inversion Attacks", ICML 2022 (arXiv:2201.12179).

Threat model: white box (logits and gradients of the target); a StyleGAN of the same kind of pictures, from a file or
trained on unlabelled public images, that knows no target.

1. The target scores many candidates of the prior; for each class the best are where the search begins.
2. One style code per candidate moves down the Poincare distance under random crops.
3. Those are kept whose class the target sees in 100 stronger random views on average.

Fidelity notes (paper / authors' code / here)
- The authors score candidates whose first ``cutoff`` layers are truncated, and then search a single code, the first
  layer's, in all layers: the search begins at other pictures than were scored. Here ``cutoff`` is offered (8 in the
  preset ``paper``), but without it all layers are truncated and the search begins at what was scored.
- The authors average the loss over a batch; here it is summed, which Adam hides up to its epsilon.
- The authors' pictures are 1024 px (512 for dogs), cut to the central 800 px and resized to the target's input. Here
  the central part is a field (`centre`), views are made at the prior's size, and the target's adapter resizes.
- Views that would be wider than the picture are cut to its side; the authors draw them again.
- The authors' discriminator term has weight 0 in all their configurations and is left out, as is the schedule of
  their default configuration, which none of those for a data set has.
- The presets ``default`` and ``smoke`` are ours: a small StyleGAN trained on the public images, larger steps, and
  cross-entropy instead of the Poincare distance, which with few classes is least at pictures that no real image is like
  (README, Limits).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from mi_image.crops import final_views, mean_confidences, search_views, view_numbers
from mi_image.identity import default_flip, view_losses
from mi_image.stylegan_attacks import (
    PREPARE_FIELDS,
    SMALL,
    TINY,
    StyleGround,
    StylePriorConfig,
    StyleRenderer,
    prepare_ground,
    restore_ground,
    shown_channels,
    with_renderer,
)
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.kit.case_rows import make_rows, reconstructions, tiled, uniform_draws
from micore.kit.losses import LOSSES
from micore.kit.row_optimizers import RowAdam
from micore.kit.search import RowSearch
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class PlugAndPlayConfig(StylePriorConfig):
    """Settings of PPA; the defaults of single fields are those of the authors for CelebA, presets change them."""

    candidates: int = Field(200, ge=1, description="candidates that are searched for each class (code: 200)")
    steps: int = Field(70, ge=0, description="Adam steps (code: 70; FaceScrub 50, dogs 100)")
    learning_rate: float = Field(0.005, gt=0, description="of the search's Adam (code: 0.005; dogs 0.01)")
    betas: tuple[float, float] = Field((0.1, 0.1), description="decays of the search's Adam (code: 0.1, 0.1)")
    loss: Literal["poincare", "cross_entropy", "max_margin"] = Field(
        "poincare", description="what moves the search (paper: poincare); see the README on targets of few classes"
    )
    views: int = Field(1, ge=1, description="random crops per step (code: 1)")
    crop_area: float = Field(0.9, gt=0, le=1, description="smallest area of such a crop (code: 0.9; dogs 0.75)")
    final_views: int = Field(100, ge=0, description="random views of the last selection (code: 100); 0: none")
    flip: float | None = Field(
        None, ge=0, le=1, description="mirror images among them (code: 0.5); none: 0.5 for colour, 0 for grey"
    )
    final: int = Field(50, ge=1, description="reconstructions that are kept for each class (code: 50)")

    @model_validator(mode="after")
    def _enough(self) -> PlugAndPlayConfig:
        if self.candidates > self.bank:
            raise ValueError(f"candidates={self.candidates} of a bank of {self.bank}")
        return self


class PlugAndPlay:
    """The attack PPA (see the module's documentation)."""

    Config: ClassVar[type[Config]] = PlugAndPlayConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            **SMALL, "candidates": 30, "final": 10, "learning_rate": 0.05, "final_views": 50, "loss": "cross_entropy",
        },
        "smoke": {
            **TINY, "candidates": 6, "final": 3, "steps": 30, "learning_rate": 0.05, "final_views": 8,
            "loss": "cross_entropy",
        },
        "paper": {"cutoff": 8, "mirror": True, "centre": 800 / 1024},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = PREPARE_FIELDS

    def __init__(self, config: PlugAndPlayConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Load or train the prior, and let the target score its candidates (section 3.2).

        Raises: DataError without a prior and public images; MiError for those that do not fit.
        """
        return prepare_ground(self.config, target, public, runtime, "ppa")

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search from the best candidates of all cases (section 3.3), then keep the most robust (section 3.4)."""
        config, ground = self.config, restore_ground(self.config, prepared, runtime, "ppa")
        module, views, loss = target.module, search_views(config.crop_area), LOSSES[config.loss]

        def losses(styles: Tensor, rows: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
            return view_losses(module, loss, ground.render(styles), rows["labels"], views, numbers)

        draw = uniform_draws(cases, config.candidates, config.views * views.n_numbers, runtime)
        rows = make_rows(cases, ground.bank.starts(cases, config.candidates), draw)
        adam = RowAdam(learning_rate=config.learning_rate, betas=config.betas)
        found = RowSearch(objective=losses, optimizer=adam, steps=config.steps).run(rows, target.ledger, runtime)
        images = tiled(ground.render, runtime.tile, found.values)
        scores, scored = self._robustness(target, cases, images, rows.constants["labels"], rows.owners, runtime)
        yield from reconstructions(cases, found, images, scores, latents=found.values, keep=config.final, scored=scored)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: the bank once; views of the search and of the last selection for each class."""
        config = self.config
        views = config.candidates * config.steps * config.views
        looks = config.candidates * max(1, config.final_views)
        return Forecast(
            preparation=Spending(queries=config.bank_queries),
            per_case=Spending(queries=views + looks, gradients=views),
        )

    def prior(self, prepared: Prepared, runtime: Runtime) -> StyleGround:
        """Return the StyleGAN as a prior, truncated as the candidates are."""
        return restore_ground(self.config, prepared, runtime, "ppa")

    def generator(self, prepared: Prepared, runtime: Runtime) -> StyleRenderer:
        """Build the network that makes pictures of style codes."""
        return StyleRenderer(self.prior(prepared, runtime))

    def with_generator(self, prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
        """Return what was prepared with other weights of that network."""
        return with_renderer(prepared, weights)

    def _robustness(
        self, target: Target, cases: Sequence[Case], images: Tensor, labels: Tensor, owners: Sequence[str],
        runtime: Runtime,
    ) -> tuple[Tensor, bool]:  # fmt: skip
        """Return the mean confidence of each row (N,) over the views of the last selection."""
        config = self.config
        views = final_views(default_flip(shown_channels(images, target), config.flip))
        numbers = view_numbers(cases, config.candidates, config.final_views, views, runtime)
        return mean_confidences(target, images, labels, numbers, views, owners, runtime)
