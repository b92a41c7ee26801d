"""Transfer learning with frozen first layers.

Ho, Koh, Chandrasegaran, Nguyen, Cheung: "Model Inversion Robustness: Can Transfer Learning Help?", CVPR 2024
(arXiv:2405.05588), "TL-DMI".

The whole network is trained on public data first. Then its first layers are frozen, and the private data
train only the last ones. What an inversion needs of the private data is, by the paper's analysis of Fisher
information, mostly in the first layers, which have seen none of it.

Threat model: any adversary. The pre-training is public knowledge; the private data reach the last layers only.

Fidelity notes (paper / authors' code / here)
- Pre-training: the paper takes networks that others trained on ImageNet or on faces. Here the network is
  trained on the labelled public samples of the data set, as long as it is then trained on the private ones,
  with a classification layer of its own that is thrown away.
- The authors train the new head alone first and then the last layers with it. Here both are trained at once.
- How much is frozen: the authors give an index of a layer for each network; a toolkit of others gives a
  share of leaf modules in the order of definition, of which activations and pooling count too. Here it is
  that share (``unit="modules"``) or a share of the parameters (``unit="parameters"``).
- In the authors' code the stem is trained by mistake (a misspelt attribute) and batch normalisation of frozen
  layers goes on averaging over private batches. Here both are fixed.
- The authors keep the epoch with the best accuracy on test data. Here nothing is chosen so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from mi_defense_transfer_freeze.layers import Freeze, Unit, count, first_layers
from micore.contracts import Config, Defense, Split
from micore.errors import ModelError
from micore.kit.features import last_linear
from micore.kit.layers import replace_layer
from micore.kit.training import Trainer, accuracy, predict
from micore.runtime import Checkpoints


class TransferFreezeConfig(Config):
    """Settings of the defense."""

    share: float = Field(
        0.6, gt=0, le=1,
        description="what is frozen, as a share; 1: all but the classification layer; others' runs: 0.4 to 0.7",
    )  # fmt: skip
    unit: Unit = Field(
        "modules",
        description="of what share is: modules (layers in the order of definition, activations too) or parameters",
    )
    pretrain_epochs: int | None = Field(
        None, ge=1, description="passes over the public data; as many as over the private ones when empty"
    )


class TransferFreeze(Defense):
    """Pre-train on public data, then hold the first layers fixed."""

    Config: ClassVar[type[Config]] = TransferFreezeConfig
    config: TransferFreezeConfig
    per_sample_loss = True  # the guarantee of dp-sgd holds beside it

    def __init__(self, config: TransferFreezeConfig) -> None:
        super().__init__(config)
        self._freeze: Freeze | None = None
        self._facts: dict[str, Any] = {}

    def adapt_training(self, trainer: Trainer) -> None:
        """Freeze the first layers and take them from the optimiser."""
        _public_labels(trainer.public)
        module, config = trainer.module, self.config
        layers = first_layers(module, config.share, config.unit)
        self._freeze = Freeze(layers, last_linear(module))
        if not self._freeze.parameters:
            raise ModelError(
                f"transfer-freeze: share={config.share} of this model's {config.unit} freezes no parameter",
                hint="a larger share, or a model with more layers",
            )
        self._freeze.on()
        for group in trainer.optimizer.param_groups:  # one that another defense made must stay that defense's
            group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
        trained = count(parameter for parameter in module.parameters() if parameter.requires_grad)
        self._facts["trained_share"] = round(trained / count(module.parameters()), 4)

    def begin(self, trainer: Trainer) -> None:
        """Train the whole network on the public samples, with a classification layer of their own."""
        freeze, public = self._freeze, trainer.public
        if freeze is None or public is None:
            raise TypeError("adapt_training comes first")
        labels = _public_labels(public)
        module, head = trainer.module, last_linear(trainer.module)
        n_public = int(labels.max()) + 1
        own_head = nn.Linear(head.in_features, n_public, bias=head.bias is not None)
        freeze.off()
        replace_layer(module, head, own_head)
        changes = {"epochs": self.config.pretrain_epochs or trainer.config.epochs, "validation": 0.0}
        nested = Trainer(
            module, public, config=trainer.config.model_copy(update=changes), adapter=trainer.adapter,
            augment=trainer.augment, runtime=trainer.runtime.with_checkpoints(Checkpoints()),
            purpose=f"{trainer.purpose}-pretraining", n_classes=n_public,
        )  # fmt: skip
        nested.fit()
        found = predict(module, public.take, len(public), trainer.adapter, trainer.runtime)
        self._facts["pretraining_accuracy"] = round(accuracy(found, labels), 4)
        replace_layer(module, own_head, head)
        module.zero_grad(set_to_none=True)  # what is left would count in the norm that gradients are clipped by
        freeze.on()

    def training_state(self) -> Mapping[str, Any]:
        """Return what is told of the pre-training, which is not repeated; the frozen layers are in the network."""
        return dict(self._facts)

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take back what is told of the pre-training."""
        self._facts = dict(state)

    def facts(self) -> Mapping[str, Any]:
        """Tell the share of parameters that saw private data, and how well the network fitted the public data."""
        return dict(self._facts)


def _public_labels(public: Split | None) -> Tensor:
    """Return the labels to pre-train on.

    Raises: ModelError when there are none, or of one class only.
    """
    labels = None if public is None else public.labels
    if labels is None or len(labels.unique()) < 2:
        raise ModelError(
            "transfer-freeze pre-trains on labelled public samples of at least two classes; this data set has none",
            hint="a data set with public classes, or another defense",
        )
    return labels
