"""An attack around another one: what all of them share (`micore.contracts.WrapsAttack`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from micore.contracts import Attack, BaseUse, Config, Forecast, HasForecast, HasPrior, Prepared, Prior
from micore.errors import DataError
from micore.runtime import Runtime

__all__ = ["Wrapper", "WrapperConfig"]


class WrapperConfig(Config):
    """Which attack is wrapped; a subclass gives ``base`` a default."""

    base: str = Field(description="attack to wrap")
    base_preset: str = Field("default", description="preset of the base attack")
    base_options: dict[str, Any] = Field(
        default_factory=dict, description='settings of the base attack, such as {"steps": 80}'
    )


class Wrapper:
    """Holds the base attack, and offers a prior and a forecast where the base does.

    A subclass adds ``Config``, ``PRESETS``, ``PREPARE_FIELDS``, ``prepare`` and ``run``; it overrides `cost` where it
    spends more than its base, and `base_prepared` where what it prepares is more than what its base does.
    """

    prior: Callable[[Prepared, Runtime], Prior]
    """Of the base, once it is taken; an attack without one is told apart by not having this attribute."""
    forecast: Callable[[int, int], Forecast]

    def __init__(self, config: WrapperConfig) -> None:
        self._use = BaseUse(name=config.base, preset=config.base_preset, options=config.base_options)
        self._base: Attack | None = None

    def base_use(self) -> BaseUse:
        """Name the base attack."""
        return self._use

    def wrap(self, base: Attack) -> None:
        """Take the base attack."""
        self._base = base
        if isinstance(base, HasPrior):
            self.prior = lambda prepared, runtime: base.prior(self.base_prepared(prepared) or prepared, runtime)
        if isinstance(base, HasForecast):
            self.forecast = lambda n_classes, n_public: self.cost(base.forecast(n_classes, n_public), n_public)

    def wrapped(self) -> Attack:
        """Return the base attack.

        Raises: DataError before `wrap`.
        """
        if self._base is None:
            raise DataError(f"the wrapper was not given its base attack {self._use.name!r}")
        return self._base

    def cost(self, base: Forecast, n_public: int) -> Forecast:
        """Return what this attack spends when its base spends so much."""
        return base

    def base_prepared(self, prepared: Prepared | None) -> Prepared | None:
        """Return the base's part of what was prepared."""
        return prepared
