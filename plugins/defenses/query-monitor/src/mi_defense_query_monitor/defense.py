"""A monitor of query streams.

A combination of signals that are in use: how far apart the queries of an account are (PRADA: Juuti, Szyller,
Marchal, Asokan, EuroS&P 2019, arXiv:1805.02628), queries that resemble earlier ones (Blacklight: Li et al., USENIX
Security 2022, arXiv:2006.14042), and marks of a class-level inversion: one class, rising confidence, other scores.

Threat model: an adversary of the interface, who searches with many queries. Nobody is stopped: what is found is
told to whoever runs the target, and stands in the manifest of a run. An adversary with the network itself asks
nobody and is not seen.

Of each window of W queries, in their order:

    concentration    how far the share of one label exceeds that label's share among the reference answers
    self_similarity  the share of queries with an earlier one of the window nearby, as vectors of averaged values
    ascent           Spearman's correlation of the order of the queries and their top scores
    shift            the Kolmogorov-Smirnov distance of top scores, or entropies, to the reference answers

A window is flagged when the largest standardised signal is beyond a threshold that a share ``false_positives`` of
windows drawn from the reference exceeds.

Fidelity notes (papers / here)
- PRADA tests the distances of queries for normality; Blacklight compares hashes. Here distances are measured
  directly, which is possible with a window.
- The windows follow each other and do not overlap. The last one, when it is not full, is judged by as many of its
  first queries as the largest calibrated size that it fills: W, W/2, W/4 ... 32.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mi_defense_query_monitor.calibration import Calibration, calibrate, reference_of
from mi_defense_query_monitor.signals import SIGNALS, described, has_near_predecessor, vectors_of
from micore.contracts import Config, Defense, Fitting
from micore.errors import ModelError
from micore.records import Samples

ANSWER_BATCH = 256
FEWEST = 10


class QueryMonitorConfig(Config):
    """Settings of the monitor."""

    window: int = Field(
        1000, ge=32, le=20_000, description="queries judged together; at most as many as reference samples; own choice"
    )
    false_positives: float = Field(
        0.01, gt=0, lt=0.5, description="share of benign windows that may be flagged; own choice"
    )
    reference_samples: int = Field(
        2000, ge=10, le=10_000, description="calibrate on at most so many reference samples; own choice"
    )
    replicates: int = Field(1000, ge=100, description="windows drawn to calibrate each window size; own choice")

    @model_validator(mode="after")
    def _enough_replicates(self) -> QueryMonitorConfig:
        if self.replicates * self.false_positives < 5:
            raise ValueError(
                f"{self.replicates} replicates cannot tell a rate of {self.false_positives}: at least "
                f"{math.ceil(5 / self.false_positives)} are needed"
            )
        return self


class QueryMonitor(Defense):
    """Watch what is asked; change no answer."""

    Config: ClassVar[type[Config]] = QueryMonitorConfig
    config: QueryMonitorConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._calibration: Calibration | None = None
        self._facts: dict[str, Any] = {}
        self._record = Record()
        self._block = Block()

    @torch.no_grad()
    def fit(self, fitting: Fitting) -> None:
        """Calibrate on the answers to the reference samples.

        Raises: ModelError with fewer than ten of them.
        """
        rng = fitting.runtime.rng("query-monitor", "windows")
        chosen = rng.permutation(len(fitting.reference))[: self.config.reference_samples]
        if len(chosen) < FEWEST:
            raise ModelError(
                f"query-monitor: {len(chosen)} reference samples are too few to calibrate on; it needs {FEWEST}",
                hint="train with more data, or keep a larger validation share",
            )
        reference = reference_of(*_described(fitting, chosen), fitting.n_classes)
        self._calibration = calibrate(
            reference, window=self.config.window, false_positives=self.config.false_positives,
            replicates=self.config.replicates, rng=rng,
        )  # fmt: skip
        self._facts = {
            "reference_samples": len(chosen),
            "reference_is_fresh": fitting.reference_is_fresh,
            "false_positives": self.config.false_positives,
            "window_sizes": self._calibration.sizes.tolist(),
            "thresholds": [round(value, 4) for value in self._calibration.thresholds.tolist()],
            "near_distance": reference.near if self._calibration.measures_distance else None,
        }

    def facts(self) -> Mapping[str, Any]:
        """Return what it was calibrated on, and how."""
        return self._facts

    def state(self) -> Mapping[str, Tensor]:
        """Return the statistics of the reference."""
        return {} if self._calibration is None else self._calibration.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back the statistics, and forget what was observed."""
        self._calibration = Calibration.from_state(state)
        self._record, self._block = Record(), Block()

    def _calibrated(self) -> Calibration:
        if self._calibration is None:
            raise ModelError("query-monitor: it was not fitted", hint="train or defend again")
        return self._calibration

    @torch.no_grad()
    def observe(self, scores: Tensor, inputs: Samples) -> None:
        """Take the answers (N, classes) and samples in, and judge every window that is full by then."""
        calibration = self._calibrated()
        rows, start = described(scores), 0
        vectors = vectors_of(inputs) if calibration.measures_distance else None
        while start < len(rows):
            stop = start + calibration.window - self._block.filled
            self._block.add(rows[start:stop], None if vectors is None else vectors[start:stop], float(calibration.near))
            start = stop
            if self._block.filled == calibration.window:
                self._record.note(calibration, self._block.rows())
                self._block = Block()

    def findings(self) -> Mapping[str, Any]:
        """Return the windows judged and flagged so far, among them the last one as far as it came.

        first_flag: queries that had been asked when the first flagged window was full, or None. signals: windows in
        which each was beyond the threshold. chance: probability that benign windows alone give so many flags.
        """
        record, calibration = self._record.copy(), self._calibrated()
        sizes = [size for size in calibration.sizes.tolist() if size <= self._block.filled]
        if sizes:
            record.note(calibration, self._block.rows()[: sizes[0]])
        return {
            "queries": self._record.queries + self._block.filled,
            "window": calibration.window,
            "windows": record.windows,
            "windows_flagged": record.flagged,
            "flagged": record.flagged > 0,
            "first_flag": record.first_flag,
            "signals": {name: record.signals[name] for name in SIGNALS},
            "largest": {name: round(value, 4) for name, value in record.largest.items()},
            "chance": round(at_least(record.flagged, record.windows, self.config.false_positives), 6),
        }


class Block:
    """The queries of the window that is filling, on the device of the answers."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._vectors: list[Tensor] = []
        self.filled = 0

    def add(self, described_rows: Tensor, vectors: Tensor | None, near: float) -> None:
        """Add queries (N, 3); ``vectors`` (N, d): of their samples."""
        found = torch.zeros(len(described_rows), 1, device=described_rows.device)
        if vectors is not None:
            vectors = vectors.to(described_rows.device)
            earlier = torch.cat([vectors[:0], *self._vectors])
            found = has_near_predecessor(vectors, earlier, near).float()[:, None]
            self._vectors.append(vectors)
        self._rows.append(torch.cat([described_rows, found], dim=1))
        self.filled += len(described_rows)

    def rows(self) -> Tensor:
        """Return what is told of each query, (filled, 4), on the CPU."""
        return torch.cat(self._rows).cpu()


class Record:
    """What was found in the windows that were judged."""

    def __init__(self) -> None:
        self.queries = self.windows = self.flagged = 0
        self.first_flag: int | None = None
        self.signals: Counter[str] = Counter()
        self.largest: dict[str, float] = {}

    def copy(self) -> Record:
        """Return a record that goes on from here."""
        other = Record()
        other.__dict__.update(self.__dict__, signals=self.signals.copy(), largest=dict(self.largest))
        return other

    def note(self, calibration: Calibration, rows: Tensor) -> None:
        """Judge a window (n, 4) of a size that was calibrated."""
        signals = calibration.signals(rows)
        beyond = calibration.exceeding(signals, calibration.sizes.tolist().index(len(rows)))
        self.queries += len(rows)
        self.windows += 1
        self.signals.update(beyond)
        for name, value in zip(SIGNALS, signals.tolist(), strict=True):
            self.largest[name] = max(value, self.largest.get(name, -math.inf))
        if beyond:
            self.flagged += 1
            self.first_flag = self.first_flag or self.queries


def at_least(k: int, n: int, rate: float) -> float:
    """Return the probability of k or more of n independent events that each have a probability ``rate``."""
    if k == 0:
        return 1.0
    fewer = sum(
        math.exp(
            math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1)
            + j * math.log(rate) + (n - j) * math.log1p(-rate)
        )
        for j in range(k)
    )  # fmt: skip
    return max(0.0, 1.0 - fewer)


def _described(fitting: Fitting, chosen: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return what is told of the reference answers, (N, 3), and the samples' vectors if they have such."""
    rows, vectors = [], []
    for part in chosen.split(ANSWER_BATCH):
        samples = fitting.reference.take(part)
        samples = samples.to(fitting.runtime.device) if isinstance(samples, Tensor) else samples
        rows.append(described(fitting.answer(samples)).cpu())
        vectors.append(vectors_of(samples))
    found = [part.cpu() for part in vectors if part is not None]
    return torch.cat(rows), torch.cat(found) if len(found) == len(rows) else None
