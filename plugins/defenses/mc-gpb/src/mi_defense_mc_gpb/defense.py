"""MC-GPB: hidden features of a graph network that tell less of the edges.

Zhou, Zhou, Li, Yao, Yao, Zhang: "On Strengthening and Defending Graph Reconstruction Attack with Markov Chain
Approximation", ICML 2023 (arXiv:2306.09104), section 5.

Threat: an adversary who sees answers or hidden features, or holds the weights, and looks for edges. A share of the
edges is left out once, before the training; the network is trained and used on the others. With E_l what the nodes are
after layer l, and L_l, R_l those of the two ends of sampled edges, the loss is

    task loss + beta sum_l I(R_l; L_l) + gamma sum_l I(E_{l+1}; E_l)

There is no differential privacy in it: what is left of the edges is measured, not bounded.

Fidelity notes (paper / authors' code / here)
- I: mutual information / an estimate that the code calls KDE, or (USA) a norm of products; CKA and HSIC by choice / the
  same four, by default CKA. The estimate has a single bin, at 0, so that columns of inner products take the place of
  bins: it is no measure of dependence (`dependence.kde`), nor is the norm; lowering the first made edges plainer.
- The code takes inner products of R, and again their inner products for CKA and HSIC / here inner products once, which
  are the linear CKA and HSIC of their definitions, and means over samples: weights do not depend on how many there are.
- Weights: one for each layer and data set, from 5e-10 to 6.6 / the same / one for all layers.
- 1000 edges are drawn for each step; between layers, all nodes are compared / the same / there, too, their ends.
- The head's cross-entropy on each hidden layer is left out: the networks here have no head that would fit.
- The edges that were left out: the code deploys the network on all edges / here on those that it was trained on.
- The code keeps the epoch with the lowest AUC for the true edges among those within 5 points of a known test accuracy.
  Neither is looked at here: the last epoch is kept, or with ``validation`` the most accurate one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mi_defense_mc_gpb.dependence import MEASURES
from mi_graph.changed_edges import ChangedEdges
from micore.contracts import Config
from micore.kit.layers import caught_outputs, outputs_and_logits

if TYPE_CHECKING:
    from micore.kit.training import Trainer, TrainingBatch


class MarkovChainPrivacyBottleneckConfig(Config):
    """Settings of the defense."""

    dropped: float = Field(
        0.3, ge=0, lt=1, description="share of the edges that is left out for good (authors: Cora 0.18, Citeseer 0.702)"
    )
    beta: float = Field(
        0.05, ge=0, description="weight of what neighbours tell of each other (authors, Cora, kde: 1.3 to 1.7)"
    )
    gamma: float = Field(
        0.05, ge=0, description="weight of what layers tell of each other (authors, Cora, kde: 1.4 and 1.5)"
    )
    measure: Literal["kde", "cka", "hsic", "dp"] = Field(
        "cka", description="of how much they tell (authors: kde, on USA dp, which measure no dependence)"
    )
    samples: int = Field(1000, ge=2, description="edges that are drawn for each step (authors: 1000)")


class MarkovChainPrivacyBottleneck(ChangedEdges):
    """Leave edges out, and lower what hidden features tell of the others."""

    Config: ClassVar[type[Config]] = MarkovChainPrivacyBottleneckConfig
    config: MarkovChainPrivacyBottleneckConfig

    def adapt_training(self, trainer: Trainer) -> None:
        """Leave edges out of the training graph, by the seed of the training; at least one is kept."""
        edges = trainer.split.take([0]).graphs[0].edges
        n = edges.shape[1]
        order = trainer.runtime.rng("mc-gpb", "dropped", trainer.purpose).permutation(n)
        self._edges = edges[:, order[: max(1, round((1 - self.config.dropped) * n))].sort().values]

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        """Return the loss so far with what neighbours and layers tell of each other."""
        if not self.config.beta and not self.config.gamma:
            return task_loss()
        layers = self._layers(module, batch)
        edges = batch.inputs.edge_index if self._edges is None else self._edges
        with torch.autocast(layers[0].device.type, enabled=False):
            extra = self._told(layers, *self._drawn(edges, layers[0].device))
        return task_loss() + extra

    def _told(self, layers: Sequence[Tensor], one: Tensor, two: Tensor) -> Tensor:
        """Return what the ends (m,) of edges tell of each other, and layers of layers, each by its weight."""
        measure = MEASURES[self.config.measure]
        neighbours = [measure(values[two], values[one]) for values in layers]
        between = [measure(after[one], before[one]) for before, after in pairwise(layers)] if self.config.gamma else []
        return self.config.beta * sum(neighbours) + self.config.gamma * sum(between)

    def _layers(self, module: nn.Module, batch: TrainingBatch) -> Sequence[Tensor]:
        """Return what all nodes are after each layer, float32 (N, width), the last without activation."""
        convolutions = list(module.convolutions)
        with caught_outputs(convolutions) as outputs:
            _ = batch.logits
        found = list(outputs) or outputs_and_logits(module, convolutions, batch.inputs)[0]
        return [*(values.float().relu() for values in found[:-1]), found[-1].float()]

    def _drawn(self, edges: Tensor, device: torch.device) -> Tensor:
        """Draw edges with replacement, each in a random direction: their ends (2, m); the generators are seeded."""
        size = min(self.config.samples, edges.shape[1])
        drawn = edges.cpu()[:, torch.randint(edges.shape[1], (size,))]
        turned = torch.randint(2, (size,), dtype=torch.bool)
        return torch.where(turned, drawn.flip(0), drawn).to(device, non_blocking=True)
