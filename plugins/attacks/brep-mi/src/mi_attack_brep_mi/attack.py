"""BREP-MI: boundary-repelling model inversion.

Kahla, Chen, Just, Jia: "Label-Only Model Inversion Attacks via Boundary Repulsion", CVPR 2022 (arXiv:2203.01925).

Threat model: the target answers with its most likely class and nothing else; unlabelled public images of the same
kind.

1. A Wasserstein GAN is trained on the public images, without the target (GMI's).
2. Random latents are shown to the target until each class has a point to begin with.
3. For each class, the target labels points on a sphere around the latent. Away from those that left the class the
   latent takes a step; when nearly all are in the class, the sphere grows. The latent that the largest sphere fits
   around lies deep in the class.

Fidelity notes (paper / authors' code / here)
- Growth: the sphere grows when points inside minus points outside exceed 3/4 of all (authors' code): 29 of 32.
  ``expand_share`` near 1 asks for all points.
- Direction: the authors' code leaves points inside the class out of the mean (``outward_only``); with
  ``outward_only=false`` they attract.
- The order is the code's: the length of the step is that of the sphere before it grows, the direction is divided by
  the radius after; a sphere stays grown when its round's proposal is rejected; the reported point is that of the
  first accepted step of the last growth, so that one whose proposal was rejected leaves the report before it.
  ``reported=last`` gives the point where the search ended.
- Latents, but not the points on the sphere, are clipped to the box.
- The authors' code draws new directions without end while every proposal leaves the class; here ``max_rejected`` in a
  row end the search of that row with what it has, and ``rounds`` bounds all. It asks an evaluator's opinion in each
  round for its log; here nothing but labels of the target is used.
- The authors search one class at a time and stop looking for starts never; here all classes and restarts are in one
  query, ``initial_batches`` bounds the starts, and a class that was never seen fails while the others go on.
- One reconstruction for each class as published; ``restarts`` begins at further starts. They are given in the order of
  the largest sphere that fitted around them, which is their score.
- The presets ``default`` and ``smoke`` are ours: a narrow GAN for small pictures on a CPU, fewer points and an early
  end, and in ``default`` a wider box. ``rounds``, ``max_rejected`` and ``initial_batches`` of ``paper`` are ours too.
- The prior is GMI's GAN; the authors also use that of KED-MI, whose critic needs the target's scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mi_attack_brep_mi.repulsion import BoundarySearch, Repulsion
from mi_attack_brep_mi.starts import Starts, StartSettings, draw_starts
from mi_image.dcgan import DcganGenerator
from mi_image.priors import GanPrior
from mi_image.wgan_config import SMALL_GAN, SMOKE_GAN, WganConfig
from mi_image.wgan_training import gan_state, restore_gan
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import CaseFailed, DataError
from micore.kit.case_rows import make_rows, normal_draws, reconstructions, tiled
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

STANDS = 6
"""Points of the curve of recovery over queries, besides the end."""


class StartConfig(WganConfig):
    """Settings of what all classes share; the defaults are the authors' code at 64 px."""

    box: float = Field(1.5, gt=0, description="largest absolute value of a latent (code: 1.5)")
    restarts: int = Field(1, ge=1, description="reconstructions per class, each from a start of its own (code: 1)")
    initial_batch: int = Field(256, ge=1, description="random latents shown to the target at once (code: 256)")
    initial_batches: int = Field(
        1000, ge=1, description="at most so many batches, until each class has its starts (code: no limit)"
    )


class BoundaryRepulsionConfig(StartConfig):
    """Settings of BREP-MI; the defaults of single fields are the authors' code, presets change them."""

    points: int = Field(32, ge=1, description="points on the sphere in each round (code: 32)")
    radius: float = Field(2.0, gt=0, description="radius of the first sphere (code: 2)")
    growth: float = Field(1.3, gt=1, description="factor of the radius when the class fills the sphere (code: 1.3)")
    expand_share: float = Field(
        0.75, ge=-1, lt=1, description="what (inside - outside) / points must exceed for the sphere to grow (code: 3/4)"
    )
    step_share: float = Field(1 / 3, gt=0, description="length of a step, in radii (code: 1/3)")
    longest_step: float = Field(3.0, gt=0, description="largest length of a step (code: 3)")
    outward_only: bool = Field(True, description="whether only points outside the class give the direction (code: yes)")
    patience: int = Field(
        1000, ge=1, description="accepted steps since the last growth after which the search ends (code: 1000)"
    )
    rounds: int = Field(10_000, ge=0, description="at most so many rounds (code: no limit)")
    max_rejected: int = Field(
        100, ge=1, description="rejected proposals in a row after which the search ends (code: no limit)"
    )
    reported: Literal["growth", "last"] = Field(
        "growth", description="the point of the last growth (code), or where the search ended"
    )


class BoundaryRepulsion:
    """The attack BREP-MI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = BoundaryRepulsionConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            **SMALL_GAN, "restarts": 8, "initial_batch": 64, "initial_batches": 50,
            "box": 3.0, "points": 16, "patience": 60, "rounds": 300, "max_rejected": 60,
        },
        "smoke": {
            **SMOKE_GAN, "restarts": 2, "initial_batch": 32, "initial_batches": 20,
            "points": 8, "radius": 1.0, "patience": 8, "rounds": 20, "max_rejected": 5,
        },
        "paper": {},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(StartConfig.model_fields)

    def __init__(self, config: BoundaryRepulsionConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train the GAN of the public images, then look for the starts of every class of the target.

        Raises: DataError without public images; MiError for images of a size that the GAN cannot make.
        """
        if public is None or len(public) == 0:
            raise DataError("brep-mi needs public images")
        images = public.take(torch.arange(len(public))).to(runtime.device)
        stages, config = Stages(runtime), self.config
        gan = stages.run("gan", lambda stage: gan_state(images, config.wgan_settings(), stage))
        generator = restore_gan(gan, runtime)[0]
        settings = StartSettings(
            wanted=config.restarts, batch=config.initial_batch, batches=config.initial_batches, box=config.box
        )

        def look(stage: Runtime) -> Mapping[str, Any]:
            ask = asking(target, generator, runtime)
            return draw_starts(ask, target.n_classes, config.latent_dim, settings, stage).state()

        return Prepared(state={"gan": gan, "starts": stages.run("starts", look)})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search around the starts of all restarts of all cases (algorithm 1).

        Raises: BudgetExceeded; CaseFailed for classes without a start (both after what was found was given).
        """
        state = _state(prepared)
        generator, starts = restore_gan(state["gan"], runtime)[0], Starts.restore(state["starts"], runtime)
        seen = starts.counts.cpu() > 0
        begun = [case for case in cases if seen[_label(case)]]
        if begun:
            yield from self._search(target, begun, generator, starts, runtime)
        reasons = {case.id: self._unseen(case, starts, target) for case in cases if not seen[_label(case)]}
        if reasons:
            raise CaseFailed(
                "; ".join(reasons.values()), reasons=reasons,
                hint="raise -p initial_batches, or give public images that are nearer to the private ones",
            )  # fmt: skip

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the labels at most: all batches for the starts; the sphere and the proposal of every round.

        A class whose starts are found early, and a row whose sphere does not grow any more, cost less.
        """
        config = self.config
        return Forecast(
            preparation=Spending(queries=config.initial_batch * config.initial_batches),
            per_case=Spending(queries=config.restarts * config.rounds * (config.points + 1)),
        )

    def prior(self, prepared: Prepared, runtime: Runtime) -> GanPrior:
        """Return the GAN as a prior; it has never seen the target."""
        return GanPrior(restore_gan(_state(prepared)["gan"], runtime)[0])

    def generator(self, prepared: Prepared, runtime: Runtime) -> nn.Module:
        """Build the generator: latents (B, latent_dim) to images; labels are ignored."""
        return restore_gan(_state(prepared)["gan"], runtime)[0]

    def with_generator(self, prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
        """Return what was prepared with other weights of the generator."""
        gan = {**prepared.state["gan"], "generator": dict(weights)}
        return Prepared(state={**prepared.state, "gan": gan})

    def _search(
        self, target: Target, cases: Sequence[Case], generator: DcganGenerator, starts: Starts, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        config = self.config
        labels = torch.tensor([_label(case) for case in cases], device=runtime.device)
        draw = normal_draws(cases, config.restarts, config.points * config.latent_dim, runtime, "directions")
        rows = make_rows(cases, starts.of(labels, config.restarts), draw)
        search = BoundarySearch(
            rule=Repulsion(
                radius=config.radius, growth=config.growth, expand_share=config.expand_share,
                step_share=config.step_share, longest_step=config.longest_step, box=config.box,
                outward_only=config.outward_only,
            ),
            points=config.points, rounds=config.rounds, patience=config.patience, max_rejected=config.max_rejected,
            reported=config.reported, stands=STANDS,
        )  # fmt: skip
        found = search.run(asking(target, generator, runtime), rows, runtime)
        images = tiled(generator, runtime.tile, found.values)
        course = [tiled(generator, runtime.tile, stand.values) for stand in found.course]
        yield from reconstructions(
            cases, found, images, -found.losses, latents=found.values, history="radius", course=course
        )

    def _unseen(self, case: Case, starts: Starts, target: Target) -> str:
        name = target.classes[_label(case)]
        return f"class {name!r} has no start: none of {starts.drawn} random latents was labelled as it"


def asking(target: Target, generator: nn.Module, runtime: Runtime) -> Callable[..., Tensor]:
    """Return a function of latents (N, d), and the cases (N) they are charged to (none: shared), to labels (N,)."""

    def labelled(latents: Tensor) -> Tensor:
        with runtime.autocast():
            images = generator(latents)
        return target.labels(images.float())

    def ask(latents: Tensor, owners: Sequence[str] = ()) -> Tensor:
        return tiled(labelled, runtime.tile, latents, ledger=target.ledger, owners=owners)

    return ask


def _label(case: Case) -> int:
    if case.label is None:
        raise DataError(f"{case.id} has no label; brep-mi recovers classes")
    return case.label


def _state(prepared: Prepared | None) -> Mapping[str, Any]:
    if prepared is None:
        raise DataError("brep-mi was not prepared")
    return prepared.state
