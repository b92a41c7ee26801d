"""What a defense is: hooks into the training of a target and into its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from micore.records import Samples

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micore.contracts import Split
    from micore.kit.training import Trainer, TrainingBatch
    from micore.runtime import Runtime


class Config(BaseModel):
    """Base of the configurations of attacks, defenses, evaluators and trainings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NoConfig(Config):
    """The configuration of a plugin that has nothing to set."""


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What the defender has when the target is trained, to fit what guards its answers.

    module: the trained network, in eval mode, without gradients, on the runtime's device. reference: labelled private
    samples to fit on: those that the training kept aside (``validation``), else the training data, which
    ``reference_is_fresh`` tells. public: labelled samples of other classes, with labels from 0, or None.
    adapter: from canonical samples to the network's input. answer: canonical samples to the scores (N, classes) as the
    defenses that come before this one leave them.
    """

    module: nn.Module
    reference: Split
    reference_is_fresh: bool
    public: Split | None
    n_classes: int
    adapter: Callable[[Samples], Tensor]
    answer: Callable[[Samples], Tensor]
    runtime: Runtime


class Defense:
    """Base of defenses: each method is a hook that leaves things as they are; several compose.

    In the order of a training: `adapt_model`, `adapt_data`, `adapt_training`, `begin`, then for each batch
    `adapt_inputs` and `training_loss`, and `fit` at the end. `adapt_output` and `observe` belong to the answers.
    """

    Config: ClassVar[type[Config]] = NoConfig

    def __init__(self, config: Any) -> None:
        self.config = config

    # training -------------------------------------------------------------------------------------

    def adapt_model(self, module: nn.Module) -> nn.Module:
        """Change the structure: a bottleneck, frozen layers, removed skips. Also done when a bundle is loaded.

        Raises: ModelError when the network lacks the layers that the defense needs.
        """
        return module

    def adapt_data(self, split: Split) -> Split:
        """Change the training data."""
        return split

    def adapt_training(self, trainer: Trainer) -> None:
        """Change optimiser, schedule, the choice of batches; also done when a training that was killed goes on.

        Raises: ConfigError, ModelError when the training cannot be defended so.
        """

    def begin(self, trainer: Trainer) -> None:
        """Work before the first epoch, such as a pre-training; not repeated when a training goes on."""

    def adapt_inputs(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Change the model's input (B, ...) of one training step; the global generators are seeded around it."""
        return inputs

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        """Return the loss; ``task_loss()`` is the loss so far, computed only when called."""
        return task_loss()

    def is_complete(self, epoch: int, epochs: int) -> bool:
        """Tell whether the model after this epoch, counted from 0, is defended in full: only such may be kept."""
        return True

    def training_state(self) -> Mapping[str, Any]:
        """Return what a training that goes on needs besides the model: nested dicts of tensors and JSON values."""
        return {}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take back what `training_state` gave, after `adapt_training`."""

    # answers --------------------------------------------------------------------------------------

    def fit(self, fitting: Fitting) -> None:
        """Fit to the trained network, once, before it is stored."""

    def state(self) -> Mapping[str, Tensor]:
        """Return what the bundle must hold of the defense, by name; no adversary sees it."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave; called whenever a bundle is loaded.

        Raises: ModelError when it does not fit.
        """

    def facts(self) -> Mapping[str, Any]:
        """Return what the card must tell of the trained defense, as JSON values: a privacy budget, trained shares."""
        return {}

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Change what the adversary sees of the scores (N, classes) of canonical samples (inference time).

        Of a target that is no classifier they are its embeddings or distributions of tokens, (N, K).
        """
        return scores

    def adapt_service(self, service: str, results: Any, inputs: Samples) -> Any:
        """Change what the adversary sees of a target's service (see `micore.answers.HasServices`): one result each."""
        return results

    def observe(self, scores: Tensor, inputs: Samples) -> None:
        """Watch the samples that were asked for and the answers given, in their order (monitoring)."""

    def findings(self) -> Mapping[str, Any]:
        """Return what was observed since the target was opened, as JSON values."""
        return {}


def guarded(scores: Tensor, samples: Samples, defenses: Sequence[Defense]) -> Tensor:
    """Return scores (N, classes) of canonical samples as the defenses leave them, in order."""
    for defense in defenses:
        scores = defense.adapt_output(scores, samples)
    return scores
