"""Differentially private stochastic gradient descent.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang: "Deep Learning with Differential Privacy", CCS 2016
(arXiv:1607.00133), with the per-sample gradients, optimiser and accountants of Opacus (Yousefpour et al.,
arXiv:2109.12298).

Threat: an adversary of any access who wants to know what one training record did to the model. Algorithm 1: each
record is in a batch with probability q, its gradient g is clipped to ``g min(1, C / |g|)``, and

    step = (sum of the clipped gradients + N(0, (sigma C)^2)) / (q n)

goes to the optimiser. Everything else, momentum and Adam included, is post-processing.

Fidelity notes (paper / Opacus / here)
- Batches: the paper's lots are Poisson samples; so they are here, with q = batch size / n and as many steps as the
  undefended training has. An empty batch is a step of noise.
- Accounting: the paper's moments accountant is the ``rdp`` of Opacus; ``prv`` counts closer and takes longer.
- Gradients of single samples are those of Opacus' hooks. Networks of tokens and networks with tasks of their own are
  differentiated by `torch.func` instead, in parts of a batch, and Opacus' optimiser clips and adds up the same way.
- Batch normalisation has no gradient of one sample; it becomes group normalisation of gcd(32, channels) groups.
- The defender's split, schedule and number of samples are taken to be public.
- Research code that is called DP-SGD often clips the mean gradient of a batch, or adds noise without accounting;
  neither has a guarantee.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

from opacus.accountants import create_accountant  # type: ignore[import-untyped]
from pydantic import Field, model_validator
from torch import Tensor, nn

from mi_defense_dp_sgd.accounting import epsilon_of, noise_for
from mi_defense_dp_sgd.functional import FunctionalGradients, needs_functions
from mi_defense_dp_sgd.gradients import PerSampleGradients
from mi_defense_dp_sgd.poisson import PoissonOptimizer, PoissonSampler
from mi_defense_dp_sgd.structure import refuse_mixing, without_mixing
from micore.contracts import Config, Defense, Fitting
from micore.errors import ConfigError, ModelError
from micore.kit.training import Trainer, TrainingBatch, placed

DEFAULT_EPSILON = 8.0
COUPLING = ("adapt_data", "begin", "adapt_inputs", "training_loss")
"""Hooks of other defenses through which a private sample can act on more than its own gradient."""


class DifferentiallyPrivateConfig(Config):
    """Settings of the defense."""

    epsilon: float | None = Field(
        None, gt=0, description="privacy budget, from which the noise follows; usual: 1, 3, 8; empty without "
        "noise_multiplier: 8",
    )  # fmt: skip
    noise_multiplier: float | None = Field(
        None, ge=0, description="noise over clip, in place of epsilon; 0 clips only and has no guarantee"
    )
    clip: float = Field(1.0, gt=0, description="largest norm of a sample's gradient, over all parameters; paper: 4")
    delta: float | None = Field(
        None, gt=0, lt=1, description="probability of a breach; empty: min(1e-5, 1 / (1.1 n)) for n records"
    )
    accountant: Literal["rdp", "prv"] = Field(
        "rdp", description="how the budget is counted; prv is tighter and slower (Opacus' default)"
    )
    rows: int = Field(
        16, ge=1, description="samples of a network of tokens whose gradients are held at a time: memory and time only"
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.epsilon is not None and self.noise_multiplier is not None:
            raise ValueError("epsilon and noise_multiplier exclude each other: each follows from the other")
        return self


class DifferentiallyPrivate(Defense):
    """Train with clipped gradients of single samples and noise."""

    Config: ClassVar[type[Config]] = DifferentiallyPrivateConfig
    config: DifferentiallyPrivateConfig

    def __init__(self, config: DifferentiallyPrivateConfig) -> None:
        super().__init__(config)
        self._accountant = create_accountant(mechanism=config.accountant)
        self._delta = 0.0
        self._gradients: PerSampleGradients | FunctionalGradients | None = None
        self._parts: tuple[Any, Any] = (None, None)

    def adapt_model(self, module: nn.Module) -> nn.Module:
        """Replace batch normalisation, and attention and recurrent layers by Opacus' own."""
        return without_mixing(module)

    def adapt_training(self, trainer: Trainer) -> None:
        """Put Poisson batches, per-sample gradients and the noise in place.

        Raises: ConfigError for settings and defenses under which the guarantee would not hold; ModelError for layers.
        """
        _refuse_leaks(trainer, self)
        _refuse_graphs(trainer)
        refuse_mixing(trainer.module)
        n, config = len(trainer.split), self.config
        rate, steps = min(1.0, trainer.config.batch_size / n), trainer.steps_per_epoch
        self._delta = config.delta or min(1e-5, 1 / (1.1 * n))
        noise = config.noise_multiplier
        if noise is None:
            budget, total = config.epsilon or DEFAULT_EPSILON, steps * trainer.config.epochs
            noise = noise_for(budget, self._delta, rate, total, config.accountant)
        by_functions = needs_functions(trainer.module)
        if by_functions:
            _refuse_losses(trainer, self)
        else:
            self._gradients = PerSampleGradients(trainer.module)
        sampler = PoissonSampler(rate, steps)
        optimizer = PoissonOptimizer(
            trainer.optimizer, sampler, noise_multiplier=noise, max_grad_norm=config.clip, expected_batch_size=rate * n
        )
        optimizer.attach_step_hook(self._accountant.get_optimizer_hook_fn(sample_rate=rate))
        if by_functions:
            self._gradients = FunctionalGradients(trainer.module, optimizer, config.rows)
        trainer.sampler, trainer.optimizer = sampler, optimizer
        self._parts = (sampler, optimizer)

    def begin(self, trainer: Trainer) -> None:
        """Check that no other defense has put something else in the place of what the guarantee rests on.

        Raises: ConfigError, ModelError.
        """
        if (trainer.sampler, trainer.optimizer) != self._parts:
            raise ConfigError(
                "another defense replaces the batches or the optimiser after 'dp-sgd', whose guarantee would not hold",
                hint="name dp-sgd after it, or leave one of them out",
            )
        refuse_mixing(trainer.module)

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        """Return the loss as it is; of networks that hooks do not see through, take the gradients here."""
        if isinstance(self._gradients, FunctionalGradients):
            return self._gradients.take(batch)
        return task_loss()

    def training_state(self) -> Mapping[str, Any]:
        """Return the steps that were taken."""
        return {"history": [list(entry) for entry in self._accountant.history]}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Count on from the steps that were taken."""
        self._accountant.history = [(noise, rate, int(steps)) for noise, rate, steps in state["history"]]

    def fit(self, fitting: Fitting) -> None:
        """Take everything off the network that the training put there."""
        if self._gradients is not None:
            self._gradients.to_standard_module()
            self._gradients, self._parts = None, (None, None)

    def facts(self) -> Mapping[str, Any]:
        """Return the budget that was spent, and of what; nothing before a training."""
        history = self._accountant.history
        if not history:
            return {}
        noise, rate, _ = history[-1]
        return {
            "epsilon": epsilon_of(history, self._delta, self.config.accountant),
            "delta": self._delta,
            "noise_multiplier": noise,
            "clip": self.config.clip,
            "sample_rate": rate,
            "steps": sum(steps for _, _, steps in history),
            "accountant": self.config.accountant,
            "unit": "one training record, added or removed; for the k records of a class together the guarantee is "
            "that of a group of k, which is far weaker",
        }


def _refuse_graphs(trainer: Trainer) -> None:
    """Raise ModelError for samples that are no rows of a tensor: nodes of a graph."""
    if not isinstance(trainer.adapter(placed(trainer.split.take([0]), trainer.runtime)), Tensor):
        raise ModelError(
            "dp-sgd bounds what one row of a tensor does; what a node of a graph does is in the loss of its neighbours "
            "as well, and nothing would be promised of edges",
            hint="gap, edge-rand and lap-graph promise edge differential privacy",
        )


def _refuse_leaks(trainer: Trainer, this: Defense) -> None:
    """Refuse settings and defenses that let private samples act on the model outside the mechanism."""
    if trainer.validation is not None:
        raise ConfigError(
            "defense 'dp-sgd': choosing the epoch looks at the private samples kept aside, outside the mechanism",
            hint="-p validation=0",
        )
    if trainer.config.clip_norm is not None:
        raise ConfigError(
            "defense 'dp-sgd' clips each sample's gradient itself; clip_norm clips that of a batch",
            hint="leave clip_norm out and set the defense's clip",
        )
    for other in trainer.defenses:
        coupling = [name for name in COUPLING if getattr(type(other), name) is not getattr(Defense, name)]
        if other is not this and coupling and not getattr(other, "per_sample_loss", False):
            raise ConfigError(
                f"defense 'dp-sgd' cannot be combined with {type(other).__name__}: its {coupling[0]} may let a private "
                "sample act on more than its own gradient, and the guarantee would not hold",
                hint="leave one of them out; a defense that treats each sample on its own says per_sample_loss = True",
            )


def _refuse_losses(trainer: Trainer, this: Defense) -> None:
    """Refuse defenses that change the loss of a network whose own loss is differentiated."""
    for other in trainer.defenses:
        if other is not this and type(other).training_loss is not Defense.training_loss:
            raise ConfigError(
                f"defense 'dp-sgd' differentiates the loss of this network itself; {type(other).__name__} changes it",
                hint="leave one of them out",
            )
