"""The privacy that a training spends, as Opacus' accountants count it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from opacus.accountants import create_accountant  # type: ignore[import-untyped]
from opacus.accountants.utils import get_noise_multiplier  # type: ignore[import-untyped]

from micore.errors import ConfigError


def noise_for(epsilon: float, delta: float, rate: float, steps: int, accountant: str) -> float:
    """Return the noise multiplier with which ``steps`` steps at sampling rate ``rate`` spend at most epsilon.

    Raises: ConfigError when no noise is enough.
    """
    try:
        with _quietly():
            return float(
                get_noise_multiplier(
                    target_epsilon=epsilon, target_delta=delta, sample_rate=rate, steps=steps, accountant=accountant
                )
            )
    except ValueError as error:
        raise ConfigError(
            f"defense 'dp-sgd': epsilon {epsilon:g} with delta {delta:g} is out of reach in {steps} steps: {error}",
            hint="a larger epsilon, fewer epochs, or accountant=rdp",
        ) from error


def epsilon_of(history: list[tuple[float, float, int]], delta: float, accountant: str) -> float | None:
    """Return the epsilon of steps (noise multiplier, sampling rate, count); None for no noise, which has none."""
    if any(noise == 0 for noise, _, _ in history):
        return None
    counting = create_accountant(mechanism=accountant)
    counting.history = list(history)
    with _quietly():
        return float(counting.get_epsilon(delta=delta))


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence what the accountants say on the way: the search begins where the orders of RDP do not reach."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
        warnings.filterwarnings("ignore", message="divide by zero encountered in log", category=RuntimeWarning)
        yield
