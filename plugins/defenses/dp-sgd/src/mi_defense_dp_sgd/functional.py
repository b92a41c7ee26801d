"""Gradients of single samples by `torch.func`: for networks whose layers do not tell what a weight was used for.

Opacus' hooks see a layer when it is called. The networks of texts read their states with the weight of the embedding
(tied embeddings), which no hook sees, and look positions up once for all samples. Here the loss of one sample is
differentiated and the batch is a dimension that `torch.func.vmap` adds, so that whatever the network does with a weight
is in its gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mi_defense_dp_sgd.poisson import PoissonOptimizer
from micore.answers import HasTask, task_losses
from micore.errors import ModelError
from micore.kit.training import TrainingBatch


def needs_functions(module: nn.Module) -> bool:
    """Tell whether hooks on layers would miss a part of the gradients: of networks of tokens, and with own tasks."""
    return isinstance(module, HasTask) or any(isinstance(layer, nn.Embedding) for layer in module.modules())


class FunctionalGradients:
    """Takes the gradients of a network's samples, few at a time, and has them clipped and added up.

    rows: samples whose gradients are held at a time.
    """

    def __init__(self, module: nn.Module, optimizer: PoissonOptimizer, rows: int) -> None:
        self._module = module
        self._optimizer = optimizer
        self._rows = rows

    def take(self, batch: TrainingBatch) -> Tensor:
        """Leave the gradients of a batch with the optimiser; return the mean loss, whose backward pass does nothing.

        Raises: ModelError when the network cannot be differentiated for each sample.
        """
        losses: list[Tensor] = []
        for inputs, labels in zip(batch.inputs.split(self._rows), batch.labels.split(self._rows), strict=True):
            if losses:
                self._optimizer.clip_what_is_there()
            gradients, found = sample_gradients(self._module, inputs, labels)
            for name, parameter in self._module.named_parameters():
                if name in gradients:
                    parameter.grad_sample = gradients[name]  # type: ignore[attr-defined]
            losses.append(found)
        return torch.cat(losses).mean().requires_grad_()

    def to_standard_module(self) -> None:
        """Take everything off the network that was put there."""
        for parameter in self._module.parameters():
            for name in ("grad_sample", "summed_grad"):
                if hasattr(parameter, name):
                    delattr(parameter, name)


class _LossOfOne(nn.Module):
    """The loss of one sample as a forward pass, so that `functional_call` can exchange the network's parameters."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return task_losses(self.network, inputs[None], labels[None])[0]


def sample_gradients(module: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return the gradient of each sample's loss by each trained parameter, (B, *shape) by name, and the losses (B,).

    inputs (B, ...), labels (B,). Random numbers, of dropout and of masks, are drawn for each sample from torch's global
    generator. Raises: ModelError when the network does something that depends on values, or changes a buffer.
    """
    loss = _LossOfOne(module)
    prefix = len("network.")
    trained = {name: item.detach() for name, item in loss.named_parameters() if item.requires_grad}
    fixed: dict[str, Tensor] = {name: item for name, item in loss.named_parameters() if not item.requires_grad}
    fixed |= dict(loss.named_buffers())

    def of_one(parameters: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        found: Tensor = functional_call(loss, (parameters, fixed), (sample, label))
        return found

    try:
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no rule for the added dimension
            gradients, losses = vmap(grad_and_value(of_one), in_dims=(None, 0, 0), randomness="different")(
                trained, inputs, labels
            )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ModelError(
            f"dp-sgd cannot differentiate {type(module).__name__} for each sample: {str(error).splitlines()[0]}",
            hint="take a network without operations that depend on values, or without this defense",
        ) from error
    return {name[prefix:]: item for name, item in gradients.items()}, losses.detach()
