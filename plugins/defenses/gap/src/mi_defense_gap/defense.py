"""GAP: graph networks with aggregation perturbation, edge-level differential privacy (GAP-EDP).

Sajadmanesh, Shamsabadi, Bellet, Gatica-Perez: "GAP: Differentially Private Graph Neural Networks with Aggregation
Perturbation", USENIX Security 2023 (arXiv:2203.00949), sections 4 and 5.

Threat: an adversary of any access who wants to know whether two nodes are joined. The network is replaced:

1. A perceptron learns the classes from features alone; its features, of length 1, are X_0 (no edge is looked at).
2. X_k = the rows of (A X_{k-1} + N(0, noise^2)), each divided by its length, for each hop: drawn once, and kept.
3. A second perceptron learns the classes from X_0 .. X_K: post-processing.

Whoever asks about the target's own graph gets answers on the X_k that were kept. No query looks at an edge again, so
that asking, and asking with other features, costs no privacy: those change the part of the node itself, X_0, alone.

The guarantee is for one undirected edge (`accounting`). Features, classes and nodes are not protected.

Fidelity notes (paper / authors' code / here)
- One edge: a directed one, sensitivity 1 / the same, on graphs that hold each edge in both directions, without a factor
  / one undirected edge, which is two directed ones: sensitivity sqrt(2), for the same epsilon noise sqrt(2) as large.
- Accounting: Renyi, then the best order / the same, over a list of orders / the same, the order in closed form.
- Delta: below one over the number of edges / 10 to the minus the digits of that number / one over the number of pairs,
  at most 1e-5: a number of edges would tell of them.
- Perceptrons: two layers of 16, SELU, batch normalisation / the same / without normalisation, of the width and dropout
  of the network that is replaced. Each X_k has layers of its own before they are joined / the same / joined at once.
- New nodes and graphs: further noise at inference / the same / a graph that the caller gives is the caller's own, so
  that its sums have no noise.
- Node-level privacy (GAP-NDP), with bounded degrees and DP-SGD, is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from mi_defense_gap.accounting import auc_bound, epsilon_of, noise_for, usual_delta
from mi_defense_gap.network import AggregationNetwork
from mi_graph.adapter import GraphInputs
from mi_graph.batch import Graphs
from mi_graph.graphs import Graph
from mi_graph.networks import GraphNetwork
from micore.contracts import Config, Defense
from micore.errors import ModelError
from micore.kit.training import Trainer

DEFAULT_EPSILON = 8.0
UNIT = "undirected edge"


class AggregationPerturbationConfig(Config):
    """Settings of the defense."""

    epsilon: float | None = Field(
        None, gt=0, description="privacy budget for each edge, from which the noise follows; empty without noise: 8"
    )
    noise: float | None = Field(
        None, ge=0, description="its deviation, in place of epsilon; 0 has no guarantee and is for comparison"
    )
    delta: float | None = Field(
        None, gt=0, lt=1, description="probability of a breach; empty: min(1e-5, 1 / pairs of nodes)"
    )
    hops: int = Field(2, ge=0, le=16, description="sums over neighbours (paper: 2); 0: a perceptron on features alone")
    encoder_epochs: int = Field(100, ge=1, description="passes in which the encoder learns (paper: 100)")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.epsilon is not None and self.noise is not None:
            raise ValueError("epsilon and noise exclude each other: each follows from the other")
        return self


class AggregationPerturbation(Defense):
    """Classify nodes by noisy sums over neighbours that are drawn once."""

    Config: ClassVar[type[Config]] = AggregationPerturbationConfig
    config: AggregationPerturbationConfig

    def __init__(self, config: AggregationPerturbationConfig) -> None:
        super().__init__(config)
        self._sums: Tensor | None = None
        self._spent: dict[str, Any] = {}

    def adapt_model(self, module: nn.Module) -> nn.Module:
        """Put the network of GAP in the place of a graph network; its convolutions are no longer there.

        Raises: ModelError for another network than those of `mi_graph.networks` for nodes.
        """
        if not isinstance(module, GraphNetwork) or module.head is not None:
            raise ModelError(
                f"gap takes the place of a graph network of mi-graph that classifies nodes, not of a "
                f"{type(module).__name__}"
            )
        return AggregationNetwork(module, self.config.hops, self.sums)

    def adapt_training(self, trainer: Trainer) -> None:
        """Set the noise by the budget."""
        delta = self.config.delta or usual_delta(_own_graph(trainer).n_nodes)
        noise, hops = self.config.noise, self.config.hops
        if noise is None:
            noise = noise_for(self.config.epsilon or DEFAULT_EPSILON, hops, delta)
        self._spent = {
            "epsilon": epsilon_of(noise, hops, delta), "delta": delta, "noise": noise, "hops": hops, "unit": UNIT,
            "auc_bound": round(auc_bound(noise, hops), 4),
        }  # fmt: skip

    def begin(self, trainer: Trainer) -> None:
        """Train the encoder on features, then draw the sums of the training graph, once.

        Raises: ModelError when other defenses change the data to several graphs.
        """
        module = trainer.module
        if not isinstance(module, AggregationNetwork):
            raise ModelError("another defense replaces the network after 'gap'")
        self._learn(module.train(), trainer)
        self._sums = self._drawn(module.eval(), trainer)

    def _learn(self, module: AggregationNetwork, trainer: Trainer) -> None:
        _, width, n_classes = module.sizes
        head = trainer.runtime.place(nn.Linear(width, n_classes))
        parameters = [*module.encoder.parameters(), *head.parameters()]
        settings = trainer.config
        optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
        for epoch in range(self.config.encoder_epochs):
            for inputs, labels in trainer.batches(epoch):
                values = functional.dropout(module.encoded(_asked(inputs)), module.dropout)
                optimizer.zero_grad(set_to_none=True)
                functional.cross_entropy(head(values), labels).backward()
                optimizer.step()

    @torch.no_grad()
    def _drawn(self, module: AggregationNetwork, trainer: Trainer) -> Tensor:
        """Return the sums of the training graph after each hop, with noise, (hops, n, width)."""
        graph, rng = _own_graph(trainer), trainer.runtime.rng("gap", "noise", trainer.purpose)
        inputs = trainer.adapter(Graphs.nodes_of(graph)).to(trainer.runtime.device)
        rows, found = module.encoded(inputs.features), []
        for hop in module.convolutions:
            noise = self._spent["noise"] * rng.normal(tuple(rows.shape)).to(rows.device)
            rows = hop(rows, inputs.edge_index, noise)
            found.append(rows)
        return torch.stack(found) if found else rows.new_empty(0, *rows.shape)

    def training_state(self) -> Mapping[str, Any]:
        """Return the sums: a training that goes on must not draw, and pay for, others."""
        return {} if self._sums is None else {"sums": self._sums}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take the sums back."""
        self._sums = state.get("sums")

    # answers --------------------------------------------------------------------------------------------

    def sums(self) -> Tensor | None:
        """Return the noisy sums of the target's own graph, (hops, n, width); None before the training."""
        return self._sums

    def state(self) -> Mapping[str, Tensor]:
        """Return the sums."""
        return {} if self._sums is None else {"sums": self._sums.detach().cpu()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the sums back."""
        self._sums = state.get("sums")

    def facts(self) -> Mapping[str, Any]:
        """Return the budget that was spent, and for what."""
        return dict(self._spent)


def _own_graph(trainer: Trainer) -> Graph:
    graph: Graph = trainer.split.take([0]).graphs[0]
    return graph


def _asked(inputs: GraphInputs) -> Tensor:
    """Return the features of the nodes that are asked about, (B, F)."""
    return inputs.features if inputs.rows is None else inputs.features[inputs.rows]
