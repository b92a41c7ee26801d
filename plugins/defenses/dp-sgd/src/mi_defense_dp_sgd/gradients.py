"""Gradients of single samples, by Opacus' formulas for each layer."""

from __future__ import annotations

from typing import Any

from opacus import GradSampleModule  # type: ignore[import-untyped]
from torch import Tensor, nn


class PerSampleGradients(GradSampleModule):  # type: ignore[misc]
    """Opacus' hooks on a network, which stays as it is; the backward ones sit on the outputs of its layers.

    Opacus uses torch's full backward hooks. They forbid that an output is changed in place, as torchvision's residual
    blocks do, and torch warns of them in every training whose input has no gradient. A hook on the output itself is
    given the same gradient.
    """

    def add_hooks(self, **options: Any) -> None:
        """Register the hooks; called once, by the constructor."""
        super().add_hooks(**options)
        self._options = {name: options[name] for name in ("loss_reduction", "batch_first")}
        for backward in self.autograd_grad_sample_hooks[1::2]:  # each layer has a forward hook, then a backward hook
            backward.remove()

    def capture_activations_hook(self, module: nn.Module, forward_input: Any, forward_output: Any) -> None:
        """Keep a layer's input, and wait for the gradient of its output."""
        before = len(getattr(module, "activations", ()))
        super().capture_activations_hook(module, forward_input, forward_output)
        if len(getattr(module, "activations", ())) == before:  # not training, or no gradients
            return
        output: Tensor = forward_output if isinstance(forward_output, Tensor) else forward_output[0]
        output.register_hook(lambda gradient: self._captured(module, gradient))

    def _captured(self, module: nn.Module, gradient: Tensor) -> None:
        self.capture_backprops_hook(module, None, (gradient,), **self._options)
