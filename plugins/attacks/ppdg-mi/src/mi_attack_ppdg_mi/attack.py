"""PPDG-MI: pseudo-private data guide the prior of another attack.

Peng, Liu, Wang, Yan, Zhang, Zhou, Zhang, Han: "Pseudo-Private Data Guided Model Inversion Attacks", NeurIPS 2024.

Threat model: that of the base attack, here white box with public images.

1. The base attack (any whose prior is one generator: ``-p base=plmi``) is run.
2. Its most confident reconstructions of a class are taken for pseudo-private samples, and a copy of the generator
   is tuned so that it gives more of what looks like them.
3. The base attack is run again on the tuned generator; steps 2 and 3 may be repeated.

Fidelity notes (paper / authors' code / here)
- The paper compares images by LPIPS features and, point-wise, adds a discriminator term. LPIPS needs weights that
  are not bundled: here the distance is that of pixels at three scales, without a discriminator.
- The authors invert pseudo-private images to find their latents (pivotal tuning); here they are the latents that the
  base attack found, of which the images were made, so there is nothing to invert.
- Paper: conditional transport and maximum mean discrepancy between sets, or point by point. All three here
  (``objective``); the neighbours of the latents are what is compared.
- The authors' low-resolution code tunes one generator for all classes on public and pseudo-private images; their
  high-resolution code copies it for each class. Here it is a copy per class, so that no class depends on another.
- All parameters of the generator are tuned; the statistics of batch normalisation are not.
- Each round draws new latents and views.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Protocol, cast

from pydantic import Field
from torch import nn

from mi_attack_ppdg_mi.tuning import Tuning
from micore.contracts import (
    Attack,
    BaseUse,
    Case,
    Config,
    Forecast,
    HasForecast,
    HasGenerator,
    HasPrior,
    Prepared,
    Prior,
    Reconstruction,
    Split,
)
from micore.errors import BudgetExceeded, CaseFailed, ConfigError, DataError
from micore.runtime import Runtime, derive_seed
from micore.target import Target
from micore.threat import Spending


class Base(Attack, HasGenerator, HasPrior, HasForecast, Protocol):
    """What the attack needs of its base."""


class PseudoPrivateDataGuidedConfig(Config):
    """Settings of PPDG-MI; the base attack's own are in ``base_options``."""

    base: str = Field("plmi", description="attack to guide; its prior must be one generator")
    base_preset: str = Field("default", description="preset of the base attack")
    base_options: dict[str, Any] = Field(
        default_factory=dict, description='settings of the base attack, such as {"steps": 80}'
    )
    rounds: int = Field(2, ge=1, description="runs of the base attack; 1 is the base alone (paper: 2)")
    pseudo_private: int = Field(10, ge=1, description="reconstructions of a class to tune on (paper: 5 to 10)")
    objective: Literal["points", "transport", "mmd"] = Field(
        "points", description="what the tuned generator should match (paper 3.2 and 3.3)"
    )
    tuning_steps: int = Field(150, ge=0, description="Adam steps of one tuning (paper: 100 to 150)")
    learning_rate: float = Field(3e-4, gt=0, description="of the tuning's Adam (code: 3e-4)")
    decay: float = Field(0.9, gt=0, le=1, description="of the learning rate, every tenth of the steps (code: 0.9)")
    radius: float = Field(0.3, ge=0, description="spread of the neighbours, in that of the latents")
    neighbours: int = Field(4, ge=1, description="neighbours of each latent in a step")


class PseudoPrivateDataGuided:
    """The attack PPDG-MI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = PseudoPrivateDataGuidedConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {"pseudo_private": 5},
        "smoke": {"base_preset": "smoke", "pseudo_private": 2, "tuning_steps": 3},
        "paper": {"base_preset": "paper"},
    }
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset()  # prepares what its base does

    def __init__(self, config: PseudoPrivateDataGuidedConfig) -> None:
        self.config = config
        self._base: Base | None = None

    def base_use(self) -> BaseUse:
        """Name the base attack."""
        config = self.config
        return BaseUse(name=config.base, preset=config.base_preset, options=config.base_options)

    def wrap(self, base: Attack) -> None:
        """Take the base attack.

        Raises: ConfigError when its prior is not one generator that can be tuned.
        """
        lacking = [kind for kind in (HasGenerator, HasPrior, HasForecast) if not isinstance(base, kind)]
        if lacking:
            raise ConfigError(
                f"ppdg-mi cannot guide {self.config.base!r}: its prior is not one generator that can be tuned",
                hint="such as -p base=plmi",
            )
        self._base = cast(Base, base)

    def wrapped(self) -> Base:
        """Return the base attack.

        Raises: DataError before `wrap`.
        """
        if self._base is None:
            raise DataError("ppdg-mi was not given its base attack")
        return self._base

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared | None:
        """Prepare the base attack."""
        return self.wrapped().prepare(target, public, runtime)

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Run the base attack on all classes, then tune and run again class by class.

        A class whose later rounds the budget cuts off comes with what it has, as incomplete.
        """
        if prepared is None:
            raise DataError("ppdg-mi was not prepared")
        first, problem = _collect(self.wrapped().run(target, cases, prepared, runtime))
        for item in first:
            if isinstance(problem, BudgetExceeded):
                yield replace(item, complete=False)
                continue
            found, problem_here = self._guided(target, item, prepared, runtime)
            problem = problem_here or problem
            yield found
        if problem is not None:
            raise problem

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: that of the base attack, in each round."""
        once, rounds = self.wrapped().forecast(n_classes, n_public), self.config.rounds
        each = Spending(queries=once.per_case.queries * rounds, gradients=once.per_case.gradients * rounds)
        return Forecast(preparation=once.preparation, per_case=each)

    def prior(self, prepared: Prepared, runtime: Runtime) -> Prior:
        """Return the base attack's prior, before any tuning."""
        return self.wrapped().prior(prepared, runtime)

    def _guided(
        self, target: Target, found: Reconstruction, prepared: Prepared, runtime: Runtime
    ) -> tuple[Reconstruction, BudgetExceeded | CaseFailed | None]:
        """Do the further rounds of one class; return the last one that gave something."""
        base, case = self.wrapped(), found.case
        for number in range(1, self.config.rounds):
            generator = self._tuned(base.generator(prepared, runtime), found, number, runtime)
            tuned = base.with_generator(prepared, generator.state_dict())
            again = replace(runtime, seed=derive_seed(runtime.seed, "ppdg-mi", number))
            items, problem = _collect(base.run(target, [case], tuned, again))
            found = items[0] if items else replace(found, complete=False)
            if problem is not None:
                return found, problem
        return found, None

    def _tuned(self, generator: nn.Module, found: Reconstruction, number: int, runtime: Runtime) -> nn.Module:
        config, n = self.config, self.config.pseudo_private
        if found.latents is None:
            raise ConfigError(f"ppdg-mi cannot guide {config.base!r}: it gives no latents", hint="such as -p base=plmi")
        tuning = Tuning(
            objective=config.objective, steps=config.tuning_steps, learning_rate=config.learning_rate,
            decay=config.decay, radius=config.radius, neighbours=config.neighbours,
        )  # fmt: skip
        rng = runtime.rng("ppdg-mi", found.case.id, number)
        return tuning.tune(generator, found.latents[:n], found.samples[:n], found.case.label or 0, rng)


def _collect(
    items: Iterator[Reconstruction],
) -> tuple[list[Reconstruction], BudgetExceeded | CaseFailed | None]:
    """Take all reconstructions, and what the attack raised after them."""
    found: list[Reconstruction] = []
    try:
        found.extend(items)
    except (BudgetExceeded, CaseFailed) as problem:
        return found, problem
    return found, None
