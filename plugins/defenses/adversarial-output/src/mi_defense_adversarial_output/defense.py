"""Adversarial noise on the answers.

Wen, Yiu, Hui: "Defending Against Model Inversion Attack by Adversarial Examples", IEEE Conference on Cyber
Security and Resilience 2021 (doi:10.1109/CSR51186.2021.9527945).

Threat model: an adversary who trained an inversion network on pairs of scores and samples, and applies it to
answers. The defender trains such a network too, the mimic g, and moves every answer p of a sample x, for T
steps from z = log p, to where the mimic errs most:

    z <- z + eta sign(grad_z ||g(softmax z) - x||^2)

with the label kept and no answer further than ``budget`` from p. Nothing is retrained.

Fidelity notes (paper / code of others / here)
- The paper was read in its abstract only; the steps are put together from code of others, one of which
  does not run.
- Budget: others project ``z - z0``, in logits, on an L1 ball. Here the budget is of the scores, which is what a
  user loses and an audit reports. After each step the largest changes are cut down to one common size, until the
  L1 distance is at most ``budget``; see `within_budget`. This is not the nearest point, which would undo the
  changes of small scores first.
- Label: others multiply the label's logit by 1.01 or 1.1, which lowers it where it is negative. Here it is
  raised to the largest other one plus ``margin``.
- Sign: entries within about 1 % of the largest gradient move less than a full step, because their sign is that of
  rounding, and would make an answer depend on the batch that it is asked in.
- Mimic: transposed convolutions for images as in others' code, with group normalisation and SiLU in place of
  batch normalisation and tanh, at most 64 px; two hidden layers for other tensors, at most 4096 values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from mi_defense_adversarial_output.mimic import Mimic, log_scores, mimicked_shape, pooled
from mi_defense_adversarial_output.noise import misleading, reconstruction_error
from micore.contracts import Config, Defense, Fitting, Split
from micore.errors import ModelError
from micore.records import Samples
from micore.runtime import Random

ANSWER_BATCH = 256


class AdversarialOutputConfig(Config):
    """Settings of the defense."""

    budget: float = Field(0.1, gt=0, le=2, description="largest L1 change of the scores of a sample; own choice")
    steps: int = Field(10, ge=1, le=1000, description="T, steps of ascent per answer (others' code: 10)")
    step_size: float = Field(0.5, gt=0, description="eta, in logits (others' code: 0.5)")
    margin: float = Field(1e-3, gt=0, description="by which the label's logit leads; own choice (others' code: x 1.01)")
    width: int = Field(16, ge=1, description="channels of the mimic's last layer; own choice (others' code: 128)")
    mimic_steps: int = Field(300, ge=1, description="training steps of the mimic; own choice")
    batch_size: int = Field(32, ge=1, description="samples per step of the mimic's training; own choice")
    learning_rate: float = Field(2e-3, gt=0, description="of the mimic's Adam; own choice")
    samples: int = Field(4000, ge=2, description="train the mimic on at most so many samples; own choice")


class AdversarialOutput(Defense):
    """Move every answer to where a mimic of the adversary errs most."""

    Config: ClassVar[type[Config]] = AdversarialOutputConfig
    config: AdversarialOutputConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._mimic: Mimic | None = None
        self._shape: tuple[int, ...] = ()
        self._facts: dict[str, Any] = {}

    @torch.enable_grad()
    def fit(self, fitting: Fitting) -> None:
        """Train the mimic on answers to public samples, or to reference samples where there are none.

        Raises: ModelError for samples that are no tensors of one shape, or fewer than two.
        """
        rng = fitting.runtime.rng("adversarial-output", "batches")
        split = fitting.reference if fitting.public is None else fitting.public
        scores, samples = self._asked(fitting, split, rng)
        with fitting.runtime.seeded("adversarial-output", "parameters"):
            mimic = Mimic(scores.shape[1], mimicked_shape(self._shape), self.config.width)
        self._train(fitting.runtime.place(mimic), log_scores(scores), samples, rng)
        self._mimic = mimic.requires_grad_(False).eval()
        self._facts = {
            "mimic_trained_on": "reference" if fitting.public is None else "public",
            "mimic_samples": len(scores),
            "reference_is_fresh": fitting.reference_is_fresh,
            **self._measured(*self._asked(fitting, fitting.reference, rng)),
        }

    def _asked(self, fitting: Fitting, split: Split, rng: Random) -> tuple[Tensor, Tensor]:
        """Return the scores (N, K) of samples of a split, and the samples as the mimic is to give them."""
        rows = rng.permutation(len(split))[: self.config.samples]
        if len(rows) < 2:
            raise ModelError(f"adversarial-output: {len(rows)} samples are too few to fit on", hint="give more data")
        scores, samples = [], []
        for part in rows.split(ANSWER_BATCH):
            taken = _tensor(split.take(part)).to(fitting.runtime.device)
            self._shape = tuple(taken.shape[1:])
            scores.append(fitting.answer(taken).float())
            samples.append(pooled(taken))
        return torch.cat(scores), torch.cat(samples)

    def _train(self, mimic: Mimic, logs: Tensor, samples: Tensor, rng: Random) -> None:
        mimic.measure(logs, samples)
        optimizer = torch.optim.Adam(mimic.parameters(), lr=self.config.learning_rate)
        size = min(self.config.batch_size, len(logs))
        for _ in range(self.config.mimic_steps):
            rows = rng.integers(len(logs), (size,))
            optimizer.zero_grad()
            functional.mse_loss(mimic(logs[rows]), samples[rows]).backward()
            optimizer.step()

    @torch.no_grad()
    def _measured(self, scores: Tensor, samples: Tensor) -> dict[str, Any]:
        before, after, distortion = [], [], []
        for answers, truth in zip(scores.split(ANSWER_BATCH), samples.split(ANSWER_BATCH), strict=True):
            given = self._moved(answers, truth)
            before.append(self._error(answers, truth))
            after.append(self._error(given, truth))
            distortion.append((given - answers).abs().sum(dim=1))
        changes = torch.cat(distortion).cpu()
        return {
            "mimic_error_before": round(float(torch.cat(before).mean()), 6),
            "mimic_error_after": round(float(torch.cat(after).mean()), 6),
            "l1_distortion_mean": round(float(changes.mean()), 5),
            "l1_distortion_95": round(float(changes.quantile(0.95)), 5),
        }

    def _error(self, scores: Tensor, samples: Tensor) -> Tensor:
        return reconstruction_error(self._fitted()(log_scores(scores)), samples)

    def facts(self) -> Mapping[str, Any]:
        """Return what the mimic was trained on, its mean squared error on reference samples, and the distortion."""
        return self._facts

    def state(self) -> Mapping[str, Tensor]:
        """Return the mimic's weights, and the shapes that it was built for."""
        if self._mimic is None:
            return {}
        return {**self._mimic.state_dict(), "shape": torch.tensor(self._shape)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Build the mimic again.

        Raises: ModelError when the weights do not fit it.
        """
        weights = dict(state)
        try:
            shape = tuple(int(size) for size in weights.pop("shape"))
            mimic = Mimic(int(weights["decoder.0.weight"].shape[1]), mimicked_shape(shape), self.config.width)
            mimic.load_state_dict(weights, strict=True)
        except (KeyError, IndexError, ValueError, RuntimeError) as error:
            raise ModelError(
                "adversarial-output: the state in the bundle is not its own", hint="train or defend again"
            ) from error
        self._mimic, self._shape = mimic.requires_grad_(False).eval(), shape

    def _fitted(self) -> Mimic:
        if self._mimic is None:
            raise ModelError("adversarial-output: it was not fitted", hint="train or defend again")
        return self._mimic

    def _moved(self, scores: Tensor, samples: Tensor) -> Tensor:
        config = self.config
        return misleading(
            self._fitted().to(scores.device), scores, samples, steps=config.steps, step_size=config.step_size,
            budget=config.budget, margin=config.margin,
        )  # fmt: skip

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return scores within the budget at which the mimic errs more, with the same label.

        Raises: ModelError for samples of another shape than those it was fitted to.
        """
        self._fitted()
        asked = _tensor(inputs)
        if tuple(asked.shape[1:]) != self._shape:
            raise ModelError(
                f"adversarial-output: samples have shape {tuple(asked.shape[1:])}; it was fitted to {self._shape}",
                hint="ask with samples of the shape that the target takes",
            )
        return self._moved(scores, pooled(asked).to(scores.device))


def _tensor(samples: Samples) -> Tensor:
    if not isinstance(samples, Tensor) or not samples.is_floating_point() or samples.ndim < 2:
        raise ModelError(
            f"adversarial-output: it needs samples that are real-valued tensors of one shape, not "
            f"{type(samples).__name__}",
            hint="another defense, such as purifier",
        )
    return samples
