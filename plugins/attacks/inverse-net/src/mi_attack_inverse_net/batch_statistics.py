"""Statistics of batch normalisation that fit a trained network, instead of those that trailed its training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["settle_statistics"]

BATCH = 1024


@torch.no_grad()
def settle_statistics(network: nn.Module, inputs: Tensor) -> None:
    """Give every batch normalisation the mean statistics of all inputs (N, ...) under the weights as they are.

    Running statistics average over weights that are gone, in batches too small for inputs with long tails, such as
    log-scores: a decoder that learnt to rebuild images then makes others in eval mode. The mode is left as it was.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta, training = [norm.momentum for norm in norms], network.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
    network.train()
    for rows in torch.arange(len(inputs)).chunk(-(-len(inputs) // BATCH)):  # equal parts: none of a single row
        network(inputs[rows.to(inputs.device)])
    network.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
