"""MI-Face: gradient descent on pixels towards the target's confidence in a class.

Fredrikson, Jha, Ristenpart: "Model Inversion Attacks that Exploit Confidence Information and Basic
Countermeasures", CCS 2015 (doi:10.1145/2810103.2813677), algorithm 1.

Threat model: white box; no data at all. The cost of an image is 1 - the target's confidence in the class.

1. Begin with a neutral image (black).
2. Step against the gradient of the cost, then process: denoise, sharpen, clip to [0, 1].
3. End after ``steps`` steps, when the cost falls no more, or when the confidence is high enough.
4. Give back the image of the lowest cost that was seen.

Fidelity notes (paper / here); the authors released no code of the attack
- Gradients: the paper also attacks as a black box, with numeric gradients, at two queries per pixel and step. Here they
  are always exact, so access is white box.
- Auxiliary term of the cost: none, as in the paper's experiments.
- Stop by cost: the algorithm ends when the cost is at most gamma, published with gamma = .99. Read so, it would end at
  once: with 40 people the cost begins near .975. Here .99 is the confidence at which the search ends.
- Stop by progress: the paper ends when the cost is no lower than the highest of the last beta ones. Here it ends when
  the lowest cost has not fallen for ``patience`` steps. Both rules are looked at every 25 steps.
- PROCESS: the paper processes only against its denoising auto-encoder (non-local means and sharpening of the decoded
  image, encoded again); softmax and perceptron get none. Here the target has no code to encode into: the filters work
  on the pixels, by default in the preset ``default``, not in ``paper``. Filter sizes are ours, the paper gives none.
- Clipping to [0, 1] is ours: canonical images lie there.
- Restarts are ours (``restarts``, ``start_noise``): the first one is the paper's, the others begin with noise added.
- The preset ``default`` is for small convolutional targets: ten times the step size, since 1 - confidence is flat where
  the target is sure of another class, and filters after each step, without which fewer classes are recognised (README).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_attack_mi_face.descent import ProcessedDescent
from mi_image.filters import DENOISERS, sharpen
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.case_rows import make_rows, reconstructions, standard_normal
from micore.kit.projections import clamp_box
from micore.kit.search import RowSearch
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

BATCH = 256


class MiFaceConfig(Config):
    """Settings of MI-Face; the defaults of single fields are the paper's, presets change them."""

    # algorithm 1
    steps: int = Field(5000, ge=1, description="at most so many steps (paper alpha: 5000)")
    learning_rate: float = Field(0.1, gt=0, description="step size (paper lambda: 0.1)")
    patience: int | None = Field(
        100, ge=1, description="end when the cost has not fallen for so many steps (paper beta: 100); none: never"
    )
    confidence: float = Field(0.99, gt=0, le=1, description="end when the target is so sure (paper gamma: 0.99)")
    start: Literal["black", "grey", "public-mean"] = Field(
        "black", description="the neutral image (paper: black); public-mean takes the mean of the public images"
    )
    # PROCESS
    denoise: Literal["none", "median", "gaussian", "non-local-means"] = Field(
        "none", description="filter after a step (paper: none; non-local-means for the auto-encoder)"
    )
    strength: float = Field(
        0.7, gt=0, description="of denoise: pixels for gaussian, share for median, similarity for non-local-means (0.1)"
    )
    sharpen: float = Field(0.0, ge=0, description="amount of sharpening after denoise (paper: not given)")
    process_every: int = Field(1, ge=1, description="steps between two times of denoise and sharpen (paper: 1)")
    # restarts
    restarts: int = Field(1, ge=1, description="images per class (paper: 1); all but the first begin with noise")
    start_noise: float = Field(0.3, gt=0, description="standard deviation of the noise that restarts begin with")


class MiFace:
    """The attack MI-Face (see the module's documentation)."""

    Config: ClassVar[type[Config]] = MiFaceConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            "steps": 500, "learning_rate": 1.0, "denoise": "gaussian", "sharpen": 0.8, "restarts": 10,
        },
        "smoke": {
            "steps": 60, "learning_rate": 1.0, "denoise": "gaussian", "sharpen": 0.8, "restarts": 2,
        },
        "paper": {},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset({"start"})

    def __init__(self, config: MiFaceConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared | None:
        """Average the public images when the search begins with them; otherwise there is nothing to prepare.

        Raises: DataError when there are no public images to average.
        """
        if self.config.start != "public-mean":
            return None
        if public is None or len(public) == 0:
            raise DataError("start=public-mean needs public images", hint="-p start=grey needs none")
        return Prepared(state={"mean": _mean_image(public)})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Descend from the neutral image (algorithm 1), for all restarts of all cases."""
        config, module = self.config, target.module

        def costs(images: Tensor, rows: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
            logits: Tensor = module(images)
            return 1 - logits.float().softmax(dim=1).gather(1, rows["labels"][:, None])[:, 0]

        search = RowSearch(
            objective=costs,
            optimizer=ProcessedDescent(
                learning_rate=config.learning_rate, process=self._process, every=config.process_every
            ),
            steps=config.steps,
            constraint=lambda images, starts: clamp_box(images, 0.0, 1.0),
            keep="best",
            patience=config.patience,
            tolerance=0.0,
            enough=1 - config.confidence,
        )
        rows = make_rows(cases, self._starts(target, cases, prepared, runtime))
        found = search.run(rows, target.ledger, runtime)
        yield from reconstructions(cases, found, found.values, 1 - found.losses, history="cost")

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count what the target answers at most: searches that converge end earlier."""
        spent = self.config.restarts * self.config.steps
        return Forecast(preparation=Spending(), per_case=Spending(queries=spent, gradients=spent))

    def _starts(self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Tensor:
        """Return where each restart of each case begins, (cases, restarts, C, H, W): the first one without noise."""
        neutral = self._neutral(target.input_spec.shape, prepared, runtime)
        starts = neutral.expand(len(cases), 1, *neutral.shape)
        if self.config.restarts == 1:
            return starts
        noise = standard_normal(cases, (self.config.restarts - 1, *neutral.shape), runtime, "start noise")
        return torch.cat([starts, (neutral + self.config.start_noise * noise).clamp(0, 1)], dim=1)

    def _neutral(self, shape: tuple[int, ...], prepared: Prepared | None, runtime: Runtime) -> Tensor:
        if self.config.start != "public-mean":
            return torch.full(shape, 0.5 if self.config.start == "grey" else 0.0, device=runtime.device)
        if prepared is None:
            raise DataError("mi-face was not prepared")
        mean: Tensor = prepared.state["mean"].to(runtime.device)
        return mean

    def _process(self, images: Tensor) -> Tensor:
        config = self.config
        if config.denoise != "none":
            images = DENOISERS[config.denoise](images, config.strength)
        return sharpen(images, config.sharpen)


def _mean_image(public: Split) -> Tensor:
    """Return the mean of the public images, (C, H, W)."""
    total = torch.stack([public.take(rows).double().sum(dim=0) for rows in torch.arange(len(public)).split(BATCH)])
    return (total.sum(dim=0) / len(public)).float()
