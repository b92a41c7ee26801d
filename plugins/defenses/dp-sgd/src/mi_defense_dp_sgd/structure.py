"""What a network may be made of, so that each sample has a gradient of its own."""

from __future__ import annotations

from opacus import GradSampleModule  # type: ignore[import-untyped]
from opacus.validators import ModuleValidator  # type: ignore[import-untyped]
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from mi_defense_dp_sgd.functional import needs_functions
from micore.errors import ModelError
from micore.kit.layers import replace_layer


def without_mixing(module: nn.Module) -> nn.Module:
    """Replace layers that mix samples or hide their parts, batch by group normalisation; return the same network.

    Opacus' ``ModuleValidator.fix`` makes a copy and passes over layers that are not trained; here its replacements
    are put into the network itself, for every layer that they are for. What was frozen stays frozen. Activations no
    longer work in place, which hooks on gradients forbid.

    Raises: ModelError for a layer that mixes samples and has no replacement.
    """
    for layer in list(module.modules()):
        fixer = ModuleValidator.FIXERS.get(type(layer))
        if fixer is not None and not isinstance(layer, _InstanceNorm):
            module = replace_layer(module, layer, _like(layer, fixer(layer)))
        elif getattr(layer, "inplace", False) is True:
            layer.inplace = False  # type: ignore[assignment]
    refuse_mixing(module)
    return module


def refuse_mixing(module: nn.Module) -> None:
    """Check that a network treats each sample of a batch on its own.

    Raises: ModelError for statistics over samples, and for trained layers with buffers.
    """
    for name, layer in module.named_modules():
        # an instance normalisation that tracks its statistics stores what no noise was added to
        if isinstance(layer, _BatchNorm) or (isinstance(layer, _InstanceNorm) and layer.track_running_stats):
            raise ModelError(
                f"layer {name!r} ({type(layer).__name__}) keeps statistics of the private samples, to which dp-sgd "
                "adds no noise",
                hint="name dp-sgd after the defenses that add layers, or take a model with another normalisation",
            )
    if needs_functions(module):
        return  # no layer needs a formula, and `torch.func` refuses to change buffers
    problems = GradSampleModule.validate(module, strict=False)
    if problems:
        raise ModelError(f"dp-sgd does not support this model: {problems[0]}")


def _like(old: nn.Module, new: nn.Module) -> nn.Module:
    """Keep device, mode and what is frozen."""
    frozen = {name for name, parameter in old.named_parameters() if not parameter.requires_grad}
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(name not in frozen)
    first = next(old.parameters(), None)
    new.train(old.training)
    return new if first is None else new.to(first.device)
