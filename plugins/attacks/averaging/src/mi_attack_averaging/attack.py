"""Averaging: any attack on answers, which asks each question several times and believes the mean.

Threat model: that of the base attack (scores, or labels only), and an adversary who knows that the answers are noisy.

A defense that perturbs its answers hides what it draws only until it is asked again: the mean of n answers to the same
question has 1/sqrt(n) of the noise. This attack asks whole batches several times, at the same number of queries each,
and gives the base attack the mean of the scores or the majority of the labels. In a comparison at equal cost the base
alone has to get as many queries.

A defense whose noise is a fixed function of the query and a secret answers the same again, and this attack gains
nothing. ``jitter`` moves the repeated samples a little, so that such a function gives other noise where it is finer
than the move; what it then averages is the target around the sample, not at it.

There is no paper behind this attack: it is the plainest of adaptive attacks, and a defense that draws noise should be
tried with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from mi_attack_averaging.repeated import Repeats
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Snapshot, Split
from micore.kit.target_views import TargetView
from micore.kit.wrappers import Wrapper, WrapperConfig
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class AveragingConfig(WrapperConfig):
    """Settings of averaging; the base attack's own are in ``base_options``."""

    base: str = Field("c2f-mi", description="attack that sees the mean answers; it may need scores or labels")
    repeats: int = Field(16, ge=1, description="answers to each query; the noise of their mean is 1/sqrt(repeats)")
    jitter: float = Field(
        0.0, ge=0, le=0.5, description="standard deviation by which repeated samples are moved, of the range [0, 1]"
    )


class LabelAveragingConfig(AveragingConfig):
    """Settings of averaging for label-only attacks."""

    base: str = Field("brep-mi", description="attack that sees the majority of the labels; it may need labels only")


class Averaging(Wrapper):
    """The attack averaging (see the module's documentation)."""

    Config: ClassVar[type[Config]] = AveragingConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "smoke": {"base_preset": "smoke", "repeats": 3},
        "paper": {"base_preset": "paper"},
    }
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(AveragingConfig.model_fields)

    def __init__(self, config: AveragingConfig) -> None:
        super().__init__(config)
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared | None:
        """Prepare the base attack on the mean answers."""
        return self.wrapped().prepare(self._view(target, runtime), public, runtime)

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Run the base attack on the mean answers."""
        for item in self.wrapped().run(self._view(target, runtime), cases, prepared, runtime):
            yield replace(item, snapshots=tuple(map(self._recounted, item.snapshots)))

    def cost(self, base: Forecast, n_public: int) -> Forecast:
        """Count each of the base's queries as often as it is asked."""
        parts = (base.preparation, base.per_case)
        preparation, per_case = (Spending(part.queries * self.config.repeats, part.gradients) for part in parts)
        return Forecast(preparation=preparation, per_case=per_case)

    def _view(self, target: Target, runtime: Runtime) -> TargetView:
        repeats = Repeats(repeats=self.config.repeats, jitter=self.config.jitter, runtime=runtime)
        return TargetView(
            target, scores=repeats.mean_scores(target.scores),
            labels=repeats.majority_labels(target.labels, target.n_classes),
        )  # fmt: skip

    def _recounted(self, snapshot: Snapshot) -> Snapshot:
        """Return an earlier stand with what it had really cost."""
        return replace(snapshot, queries=snapshot.queries * self.config.repeats)


class LabelAveraging(Averaging):
    """The attack averaging for label-only attacks."""

    Config: ClassVar[type[Config]] = LabelAveragingConfig
