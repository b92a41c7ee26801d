"""Attacks around others: which base fits, and what is offered because the base offers it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from micore.attacks import build_attack
from micore.contracts import Forecast, HasForecast, HasPrior, Prepared, WrapsAttack
from micore.errors import ConfigError, DataError
from micore.hookspecs import hookimpl
from micore.kit.wrappers import Wrapper, WrapperConfig
from micore.registry import Registry
from micore.runtime import Runtime
from micore.specs import AttackSpec
from micore.threat import Access, Spending


class Plain:
    """An attack with neither prior nor forecast."""

    Config: ClassVar[Any] = WrapperConfig
    PRESETS: ClassVar[Any] = {"default": {"base": "none"}, "paper": {"base": "published"}}
    PREPARE_FIELDS: ClassVar[Any] = frozenset()

    def __init__(self, config: WrapperConfig) -> None:
        self.config = config

    def prepare(self, *given: Any) -> Prepared:
        return Prepared(state={})

    def run(self, *given: Any) -> Iterator[Any]:
        yield from ()


class Full(Plain):
    """An attack with both."""

    def prior(self, prepared: Prepared, runtime: Runtime) -> Any:
        return prepared.state

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        return Forecast(preparation=Spending(n_public), per_case=Spending(n_classes, 1))


class Around(Wrapper):
    """A wrapper that keeps its base's preparation inside its own, and doubles the queries of a case."""

    Config: ClassVar[Any] = WrapperConfig
    PRESETS: ClassVar[Any] = {"default": {}}
    PREPARE_FIELDS: ClassVar[Any] = frozenset({"base"})

    prepare = Plain.prepare
    run = Plain.run

    def cost(self, base: Forecast, n_public: int) -> Forecast:
        return Forecast(preparation=base.preparation, per_case=Spending(2 * base.per_case.queries))

    def base_prepared(self, prepared: Prepared | None) -> Prepared | None:
        return None if prepared is None else Prepared(state=prepared.state["inside"])


class OnItsOwn(Around):
    """A wrapper that attacks a model of its own."""

    ATTACKS_OWN_MODEL: ClassVar[bool] = True


class Plugin:
    @hookimpl
    def mi_attacks(self) -> list[AttackSpec]:
        return [
            AttackSpec(
                name=kind.__name__.lower(), target=f"{__name__}:{kind.__name__}", summary="Toy", modality="toy",
                goal=goal, access=access, needs=needs,
            )
            for kind, goal, access, needs in (
                (Plain, "class", Access.WHITE_BOX, ()), (Full, "class", Access.LABEL, ()),
                (Around, "class", Access.LABEL, ()), (OnItsOwn, "class", Access.LABEL, ()),
                (Needy, "class", Access.LABEL, ("public",)), (Other, "instance", Access.LABEL, ()),
            )
        ]  # fmt: skip


class Needy(Plain): ...


class Other(Plain): ...


def build(name: str, base: str, **options: Any) -> Any:
    registry = Registry.from_plugins({"toys": Plugin()})
    return build_attack(registry, registry.find("attack", name), "default", {"base": base, **options})


def test_a_base_that_needs_more_access_is_refused() -> None:
    with pytest.raises(ConfigError, match="'around' cannot wrap 'plain': white-box access"):
        build("around", "plain")
    assert isinstance(build("around", "full").wrapped(), Full)


def test_a_model_of_ones_own_may_be_attacked_with_any_access() -> None:
    attack = build("onitsown", "plain")
    assert isinstance(attack, WrapsAttack)
    assert isinstance(attack.wrapped(), Plain)


@pytest.mark.parametrize(("base", "problem"), [("needy", "needs public"), ("other", "goal instance")])
@pytest.mark.parametrize("wrapper", ["around", "onitsown"])
def test_other_needs_must_fit_all_the_same(wrapper: str, base: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        build(wrapper, base)


def test_no_attack_wraps_itself() -> None:
    with pytest.raises(ConfigError, match="itself"):
        build("onitsown", "onitsown")


def test_the_base_is_built_with_its_preset_and_options() -> None:
    attack = build("around", "full", base_preset="paper", base_options={"base_preset": "x"})
    assert (attack.wrapped().config.base, attack.wrapped().config.base_preset) == ("published", "x")
    assert attack.base_use().options == {"base_preset": "x"}


def test_prior_and_forecast_are_offered_where_the_base_has_them() -> None:
    full, plain = build("around", "full"), build("onitsown", "plain")
    assert [isinstance(full, kind) for kind in (HasPrior, HasForecast)] == [True, True]
    assert [isinstance(plain, kind) for kind in (HasPrior, HasForecast)] == [False, False]
    assert full.prior(Prepared(state={"inside": {"a": 1}}), None) == {"a": 1}
    expected = Forecast(preparation=Spending(7), per_case=Spending(6))
    assert full.forecast(3, 7) == expected


def test_without_a_base_it_says_so() -> None:
    with pytest.raises(DataError, match="not given its base attack 'full'"):
        Around(WrapperConfig(base="full")).wrapped()
