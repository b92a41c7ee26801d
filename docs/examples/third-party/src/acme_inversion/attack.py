"""Gradient ascent on smooth pictures. No paper: it is the plainest attack that recovers shapes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from micore.contracts import Case, Config, Prepared, Reconstruction, Split
from micore.kit.case_rows import make_rows, reconstructions, standard_normal
from micore.kit.losses import max_margin
from micore.kit.row_optimizers import RowAdam
from micore.kit.search import RowSearch
from micore.runtime import Runtime
from micore.target import Target


class AcmeClimbConfig(Config):
    """Settings of the search."""

    steps: int = Field(300, ge=1, description="Steps of gradient ascent")
    restarts: int = Field(4, ge=1, description="Starting points per class")
    learning_rate: float = Field(0.03, gt=0, description="Step size of Adam, in units of the range [0, 1]")
    smoothness: float = Field(0.02, ge=0, description="Weight of differences between neighbouring pixels")


class AcmeClimb:
    """Climb from noise to smooth pictures that the target assigns to a class."""

    Config: ClassVar[type[Config]] = AcmeClimbConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {}, "smoke": {"steps": 60, "restarts": 2}, "paper": {"steps": 1000, "restarts": 8},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: AcmeClimbConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared | None:
        """Prepare nothing: the cases share no work."""

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search all restarts of all cases; a row of the search is one of them."""

        def loss(samples: Tensor, rows: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
            across, down = (samples.diff(dim=dim).abs().flatten(1).sum(dim=1) for dim in (2, 3))
            return max_margin(target.module(samples), rows["labels"]) + self.config.smoothness * (across + down)

        noise = standard_normal(cases, (self.config.restarts, *target.input_spec.shape), runtime, "start")
        rows = make_rows(cases, (0.5 + 0.1 * noise).clamp(0, 1))
        adam = RowAdam(learning_rate=self.config.learning_rate)
        search = RowSearch(objective=loss, optimizer=adam, steps=self.config.steps, constraint=_in_range)
        found = search.run(rows, target.ledger, runtime)
        yield from reconstructions(cases, found, found.values, -found.losses)


def _in_range(samples: Tensor, starts: Tensor) -> Tensor:
    return samples.clamp(0, 1)
