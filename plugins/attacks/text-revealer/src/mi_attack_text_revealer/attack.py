"""Text Revealer: texts of a class from a white-box classifier, by a language model that its gradients steer.

Zhang, Hidano, Koushanfar: "Text Revealer: Private Text Reconstruction via Model Inversion Attacks against
Transformers", 2022 (arXiv:2209.10505).

Threat model: white box; unlabelled public texts of the same domain.

1. A language model is trained on the public texts.
2. ``method=steered``: it writes many texts of each class. Before each token its state (the keys and values so far,
   and the input of this place) is moved by some steps of gradient: of the classifier's loss on what is written with
   a soft next token, and of the divergence from the unmoved distribution. The token is drawn from the geometric mean
   of the moved and the unmoved distribution.
   ``method=tokens``: texts of the language model are changed token by token: the gradient proposes, the classifier
   looks at each proposal (HotFlip, Ebrahimi et al., ACL 2018; GCG, Zou et al., 2023).
3. Texts are ranked by the classifier's loss on the text as it is written out and read again.

Fidelity notes (paper / authors' code / here)
- The authors' code is not public; the steering follows PPLM (Dathathri et al., ICLR 2020), on which the paper builds.
- The paper fine-tunes GPT-2 on phrases mined from public texts; here a small language model learns public texts as
  they are, with the target's tokenizer, so that soft tokens need no translation.
- PPLM moves the keys and values of a window of five places; here all, and also the input of the current place, as the
  first token has no past.
- The probability that the text ends here is the language model's own: the classifier never sees the soft end.
- ``tokens``: proposals are scored with the language model's fluency, too, and only as what a reader would read: the
  changed text is written out and split into tokens again.
- Presets are ours; the paper's training lengths are not published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from mi_attack_text_revealer.exchange import Exchange, Stand
from mi_attack_text_revealer.prior import PRIOR_FIELDS, PriorConfig, TextPrior, prior_state, restore_prior
from mi_attack_text_revealer.steering import Steering, Writer
from mi_text.sampling import Sampling
from mi_text.tokenizing import decode
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded, DataError
from micore.kit.case_rows import tiled
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class RevealerConfig(PriorConfig):
    """Settings of Text Revealer."""

    method: Literal["steered", "tokens"] = Field("steered", description="steer a language model, or exchange tokens")
    restarts: int = Field(32, ge=1, description="texts that are made for each class")
    keep: int = Field(16, ge=1, description="texts given back for each class, at most as many as restarts")
    max_tokens: int = Field(32, ge=1, description="longest text; never more than the target reads")
    iterations: int = Field(5, ge=1, description="steered: steps of gradient for each token (PPLM: 3 to 10)")
    step_size: float = Field(0.5, ge=0, description="steered: length of such a step (PPLM, on GPT-2: 0.02 to 0.03)")
    normalisation: float = Field(1.0, ge=0, description="steered: power of the gradient's norm (PPLM: 1 to 1.5)")
    kl_weight: float = Field(0.01, ge=0, description="steered: of the divergence from the prior (PPLM: 0.01)")
    fusion: float = Field(0.95, ge=0, le=1, description="steered: of the moved distribution (PPLM: 0.9 to 0.95)")
    temperature: float = Field(1.0, ge=0, description="steered: of drawing tokens; 0: the most likely")
    top_k: int = Field(10, ge=1, description="steered: tokens are drawn among so many most likely ones (PPLM: 10)")
    rounds: int = Field(50, ge=1, description="tokens: rounds of exchanges (GCG: 500)")
    candidates: int = Field(32, ge=1, description="tokens: considered for each place (GCG: 256)")
    swaps: int = Field(64, ge=1, description="tokens: exact looks in each round (GCG: 512)")
    fluency: float = Field(0.5, ge=0, description="tokens: weight of the language model's loss")

    @model_validator(mode="after")
    def _keep_what_is_there(self) -> RevealerConfig:
        if self.keep > self.restarts:
            raise ValueError(f"keep={self.keep} is more than restarts={self.restarts}")
        return self


class TextRevealer:
    """The attack Text Revealer (see the module's documentation)."""

    Config: ClassVar[type[Config]] = RevealerConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "smoke": {
            "prior_width": 32, "prior_layers": 1, "prior_heads": 2, "prior_steps": 150, "prior_batch_size": 32,
            "prior_learning_rate": 1e-2, "restarts": 16, "keep": 4, "max_tokens": 8, "iterations": 6, "rounds": 6,
            "swaps": 16,
        },
        "paper": {
            "prior_width": 768, "prior_layers": 12, "prior_heads": 12, "prior_steps": 50_000,
            "prior_learning_rate": 2e-4, "step_size": 0.02, "iterations": 10, "restarts": 100, "keep": 100,
            "rounds": 500, "candidates": 256, "swaps": 512,
        },
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = PRIOR_FIELDS

    def __init__(self, config: RevealerConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train the language model on the public texts; it asks the target nothing.

        Raises: DataError without public texts; ModelError for a tokenizer that it cannot use.
        """
        return Prepared(state=prior_state(public, target.input_spec, self.config, runtime))

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Make texts of every class and yield those that the target is surest of."""
        prior = restore_prior(_state(prepared), runtime)
        per_group = max(1, runtime.tile // self.config.restarts)
        work = self._steered if self.config.method == "steered" else self._exchanged
        for start in range(0, len(cases), per_group):
            yield from work(target, cases[start : start + per_group], prior, runtime)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work; steered texts that end early cost less."""
        config = self.config
        if config.method == "steered":
            moves = config.max_tokens * config.iterations
            each = Spending(queries=moves + 1, gradients=moves)
        else:
            each = Spending(queries=1 + config.rounds * (1 + config.swaps), gradients=config.rounds)
        per_case = Spending(queries=config.restarts * each.queries, gradients=config.restarts * each.gradients)
        return Forecast(preparation=Spending(), per_case=per_case)

    def prior(self, prepared: Prepared, runtime: Runtime) -> TextPrior:
        """Return the language model as a prior; it has never seen the target."""
        return restore_prior(_state(prepared), runtime)

    def _steered(
        self, target: Target, cases: Sequence[Case], prior: TextPrior, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        config, width = self.config, min(self.config.max_tokens, prior.tokens)
        steering = Steering(
            iterations=config.iterations, step_size=config.step_size, normalisation=config.normalisation,
            kl_weight=config.kl_weight, fusion=config.fusion,
            sampling=Sampling(max_tokens=width, temperature=config.temperature, top_k=config.top_k),
        )  # fmt: skip
        writer = Writer(prior=prior, target=target, steering=steering, tile=runtime.tile)
        labels, owners = self._rows(cases, runtime)
        uniform = torch.cat([runtime.rng("tokens", case.id).uniform((config.restarts, width)) for case in cases])
        parts = [
            writer.write(labels[rows], uniform[rows], [owners[row] for row in rows.tolist()])
            for rows in torch.arange(len(labels), device=labels.device).split(runtime.tile)
        ]
        texts = decode(prior.tokenizer, torch.cat([part.ids for part in parts]).tolist())

        def class_losses(ids: Tensor, wanted: Tensor) -> Tensor:
            return functional.cross_entropy(target.module(ids).float(), wanted, reduction="none")

        ids = prior.encode(texts, prior.tokens).to(labels.device)
        losses = tiled(class_losses, runtime.tile, ids, labels, ledger=target.ledger, owners=owners)
        gaps = losses - torch.cat([part.losses for part in parts])
        yield from self._given_back(cases, texts, losses, {"relaxation_gap": gaps[:, None]})

    def _exchanged(
        self, target: Target, cases: Sequence[Case], prior: TextPrior, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        config, width = self.config, min(self.config.max_tokens, prior.tokens)
        labels, owners = self._rows(cases, runtime)
        exchange = Exchange(
            prior, target, labels, owners, prior.tokens, config.candidates, config.swaps, config.fluency, runtime
        )
        starts = [
            text
            for case in cases
            for text in prior.sample(config.restarts, runtime.rng("starts", case.id), max_tokens=width)
        ]
        stand = exchange.start(starts)
        losses, gaps = [stand.losses], list[Tensor]()
        try:
            for turn in range(config.rounds):
                shape = (config.restarts, config.swaps, 2)
                drawn = [runtime.rng("swaps", case.id, turn).uniform(shape) for case in cases]
                stand, gap = exchange.round(stand, torch.cat(drawn))
                losses.append(stand.losses)
                gaps.append(gap)
        except BudgetExceeded:
            yield from self._standing(cases, prior, stand, losses, gaps, complete=False)
            raise
        yield from self._standing(cases, prior, stand, losses, gaps, complete=True)

    def _standing(
        self, cases: Sequence[Case], prior: TextPrior, stand: Stand, losses: Sequence[Tensor], gaps: Sequence[Tensor],
        *, complete: bool,
    ) -> Iterator[Reconstruction]:  # fmt: skip
        texts = decode(prior.tokenizer, stand.ids.tolist())
        history = {"loss": torch.stack(list(losses), dim=1)}
        if gaps:
            history["relaxation_gap"] = torch.stack(list(gaps), dim=1)
        yield from self._given_back(cases, texts, stand.losses, history, complete=complete)

    def _rows(self, cases: Sequence[Case], runtime: Runtime) -> tuple[Tensor, list[str]]:
        """Return the class and the owner of each row: case by case, as many as there are restarts."""
        labels = torch.tensor([case.label for case in cases], device=runtime.device)
        owners = [case.id for case in cases for _ in range(self.config.restarts)]
        return labels.repeat_interleave(self.config.restarts), owners

    def _given_back(
        self, cases: Sequence[Case], texts: Sequence[str], losses: Tensor, history: Mapping[str, Tensor], *,
        complete: bool = True,
    ) -> Iterator[Reconstruction]:  # fmt: skip
        """Yield each case's different texts, lowest loss first; history (N, looks) is averaged over its rows."""
        n = self.config.restarts
        for index, case in enumerate(cases):
            rows = slice(index * n, (index + 1) * n)
            order = losses[rows].argsort(stable=True).tolist()
            own = list(texts[rows])
            chosen = list({own[place]: place for place in reversed(order)}.values())[::-1][: self.config.keep]
            yield Reconstruction(
                case=case,
                samples=[own[place] for place in chosen],
                scores=-losses[rows][torch.tensor(chosen, device=losses.device)].detach().float(),
                history={name: values[rows].mean(dim=0).tolist() for name, values in history.items()},
                complete=complete,
            )


def _state(prepared: Prepared | None) -> Mapping[str, Any]:
    if prepared is None:
        raise DataError("text-revealer was not prepared")
    return prepared.state
