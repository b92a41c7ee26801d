"""The registry finds plugins, keeps broken ones apart, and says what is wrong when they are named."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from micore import specs
from micore.errors import (
    IncompatiblePluginError,
    NameClashError,
    PluginError,
    UnknownNameError,
    UsageError,
)
from micore.hookspecs import OBSERVER_HOOKS, SPEC_HOOKS, hookimpl
from micore.registry import PluginRecord, Registry
from micore.threat import Access

COMMON: dict[str, Any] = {"name": "toy", "target": "json:loads", "summary": "A toy"}
TOYS: dict[str, specs.Spec] = {
    "mi_modalities": specs.ModalitySpec(**COMMON),
    "mi_datasets": specs.DatasetSpec(**COMMON, modality="image", licence="CC0"),
    "mi_models": specs.ModelSpec(**COMMON, modality="image"),
    "mi_sources": specs.SourceSpec(**COMMON, scheme="toy"),
    "mi_attacks": specs.AttackSpec(**COMMON, modality="image", goal="class", access=Access.LABEL),
    "mi_defenses": specs.DefenseSpec(**COMMON, stages=("training",)),
    "mi_evaluators": specs.EvaluatorSpec(**COMMON, modality="image", goals=("class",)),
    "mi_commands": specs.CommandSpec(**COMMON),
}


def plugin(**hooks: Callable[..., Any]) -> types.ModuleType:
    """Make a plugin module of these hook implementations."""
    module = types.ModuleType("toy_plugin")
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function))
    return module


def offering(hook: str, *offered: Any) -> types.ModuleType:
    """Make a plugin whose hook returns these."""
    return plugin(**{hook: lambda: list(offered)})


def attack(name: str, **changes: Any) -> specs.AttackSpec:
    """Make an attack's description."""
    values = {**COMMON, "name": name, "modality": "image", "goal": "class", "access": Access.LABEL, **changes}
    return specs.AttackSpec(**values)


def record(registry: Registry, name: str) -> PluginRecord:
    """Return the record of an entry point."""
    return next(record for record in registry.records if record.name == name)


# --- every hook -----------------------------------------------------------------------------------


def test_every_hook_that_describes_has_a_toy() -> None:
    assert set(TOYS) == set(SPEC_HOOKS)


@pytest.mark.parametrize("hook", SPEC_HOOKS)
def test_spec_hook(hook: str) -> None:
    registry = Registry.from_plugins({"toys": offering(hook, TOYS[hook])})
    entry = registry.find(TOYS[hook].kind, "toy")
    assert entry.spec is TOYS[hook]
    assert (entry.provider.distribution, entry.provider.status) == ("toys", "ok")


@pytest.mark.parametrize("hook", OBSERVER_HOOKS)
def test_observer_hook_gets_what_it_asks_for(hook: str) -> None:
    seen: list[str] = []
    given = {"run": "the run", "case": "the case", "reconstruction": "a reconstruction"}
    arguments = given if hook == "mi_case_done" else {"run": given["run"]}
    registry = Registry.from_plugins({"tracker": plugin(**{hook: lambda run: seen.append(run)})})
    registry.observe(hook, **arguments)
    assert seen == ["the run"]


def test_plugin_that_observes_is_a_tracker() -> None:
    def watch(run: object) -> None:
        """Watch."""

    renamed = types.ModuleType("renamed")
    renamed.watch = hookimpl(specname="mi_run_finished")(lambda run: None)  # type: ignore[attr-defined]

    class Object:
        @hookimpl
        def mi_run_started(self) -> None:
            """Do nothing."""

    plugins = {"tracker-board": plugin(mi_run_finished=watch), "My_Eye": renamed, "other": Object()}
    registry = Registry.from_plugins({**plugins, "plain": offering("mi_attacks", attack("fine"))})
    assert not registry.failed
    found = {entry.spec.name: entry for entry in registry.entries("tracker")}
    assert {name: entry.spec.target for name, entry in found.items()} == {
        "board": "toy_plugin:mi_run_finished", "my-eye": "renamed:watch", "other": f"{__name__}:Object",
    }  # fmt: skip
    assert registry.plugin_of(found["my-eye"]) is renamed
    assert {entry.spec.summary for entry in found.values()} == {"Observes runs"}


def test_summary_of_an_installed_tracker_is_that_of_its_package(site: Any) -> None:
    source = "from micore.hookspecs import hookimpl\n@hookimpl\ndef mi_run_started(run):\n    pass\n"
    site.install("mi-tracker-eye", source)
    metadata = site.path / "mi_tracker_eye-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0\n", "Version: 1.0\nSummary: Sees it all\n"))
    entry = Registry.discover().find("tracker", "eye")
    assert (entry.spec.summary, entry.provider.distribution) == ("Sees it all", "mi-tracker-eye")


def test_failing_observer_is_reported_and_stops_nothing() -> None:
    reports: list[str] = []
    seen: list[str] = []

    def fail(run: object) -> None:
        raise ValueError("no\nnetwork")

    registry = Registry(report=reports.append)
    registry.add("good", plugin(mi_run_started=lambda run: seen.append(run)))
    registry.add("bad", plugin(mi_run_started=fail))
    registry.observe("mi_run_started", run="the run")
    assert seen == ["the run"]
    assert reports == ["observer bad:bad failed in mi_run_started: ValueError: no network"]


def test_failing_observer_is_logged_without_a_reporter(caplog: pytest.LogCaptureFixture) -> None:
    def fail(run: object) -> None:
        raise ValueError("no network")

    Registry.from_plugins({"bad": plugin(mi_run_finished=fail)}).observe("mi_run_finished", run=None)
    assert "observer bad:bad failed" in caplog.text


def test_interrupt_passes_through_an_observer() -> None:
    def interrupt(run: object) -> None:
        raise KeyboardInterrupt

    registry = Registry.from_plugins({"bad": plugin(mi_run_started=interrupt)})
    with pytest.raises(KeyboardInterrupt):
        registry.observe("mi_run_started", run=None)


def test_only_observer_hooks_can_be_observed() -> None:
    with pytest.raises(UsageError, match="not an observer hook"):
        Registry().observe("mi_attacks")


# --- broken plugins -------------------------------------------------------------------------------


def wrong_signature(config: object) -> Iterable[specs.AttackSpec]:
    return []


def raising() -> Iterable[specs.AttackSpec]:
    raise RuntimeError("first line\nsecond line")


BROKEN: dict[str, tuple[types.ModuleType, str]] = {
    "bad signature": (plugin(mi_attacks=wrong_signature), "config"),
    "unknown hook": (plugin(mi_atacks=lambda: []), "unknown hook mi_atacks"),
    "no hook": (types.ModuleType("empty"), "implements no hook"),
    "hook raises": (plugin(mi_attacks=raising), "RuntimeError: first line second line"),
    "not iterable": (plugin(mi_attacks=lambda: None), "returned NoneType"),
    "wrong kind": (offering("mi_attacks", TOYS["mi_models"]), "returned a ModelSpec, not a AttackSpec"),
    "one name twice": (offering("mi_attacks", attack("a"), attack("a")), "offers attack 'a' twice"),
    "invalid description": (plugin(mi_attacks=lambda: [attack("Not A Name")]), "must be like"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin_is_recorded_and_hurts_no_other(case: str) -> None:
    module, reason = BROKEN[case]
    module.mi_run_started = hookimpl(lambda run: pytest.fail("observer of a broken plugin"))  # type: ignore[attr-defined]
    if case == "no hook":
        del module.mi_run_started
    registry = Registry.from_plugins({"bad": module, "good": offering("mi_attacks", attack("fine"))})
    bad = record(registry, "bad")
    assert bad.status == "broken"
    assert reason in str(bad.reason)
    assert "\n" not in str(bad.reason)
    assert "Traceback" in str(bad.trace)
    assert [entry.spec.name for entry in registry.entries("attack")] == ["fine"]
    registry.observe("mi_run_started", run=None)


def test_forgotten_marker_is_told() -> None:
    module = types.ModuleType("unmarked")
    module.mi_attacks = lambda: []  # type: ignore[attr-defined]
    assert Registry.from_plugins({"bad": module}).records[0].reason == "mi_attacks is not marked with @hookimpl"


def test_wrapper_is_refused() -> None:
    module = types.ModuleType("wrapping")

    @hookimpl(wrapper=True)
    def mi_attacks() -> Iterable[Any]:
        return (yield)

    module.mi_attacks = mi_attacks  # type: ignore[attr-defined]
    assert "cannot be wrapped" in str(Registry.from_plugins({"bad": module}).records[0].reason)


# --- installed plugins ----------------------------------------------------------------------------


def test_discover_isolates_every_failure(site: Any) -> None:
    site.install("mi-attack-raises", "1 / 0")
    site.install("mi-attack-exits", "import sys; sys.exit(3)")
    site.install("mi-attack-old", "1 / 0", requires=["micore>=99", "torch"])
    site.install("mi-attack-garbage", "", entry_points="[micore]\nthis is no entry point\n")
    site.install("mi-attack-empty", "", entry_points="[micore]\n")
    site.install("mi-attack-gone", "", entry_points="[micore]\nattack-gone = no_such_module\n")
    site.install_attack("mi-attack-fine", "fine")
    registry = Registry.discover()
    found = {record.distribution: record for record in registry.records}
    assert found["mi-attack-raises"].reason == "ZeroDivisionError: division by zero"
    assert found["mi-attack-exits"].status == "broken"
    assert (found["mi-attack-old"].status, found["mi-attack-old"].trace) == ("incompatible", None)
    assert "needs micore>=99, this is" in str(found["mi-attack-old"].reason)
    assert found["mi-attack-garbage"].status == "broken"
    assert "is empty" in str(found["mi-attack-empty"].reason)
    assert "no_such_module" in str(found["mi-attack-gone"].reason)
    assert registry.find("attack", "fine").provider.version == "1.0"


@pytest.mark.parametrize(
    "requirement",
    [
        "micore",
        "micore>=0.1,<99",
        "micore-extra>=99",
        "micore>=99; extra == 'new'",
        "micore>=99; python_version < '3'",
    ],
)
def test_fitting_requirement_is_no_obstacle(site: Any, requirement: str) -> None:
    site.install("mi-attack-fits", "1 / 0", requires=[requirement])
    assert record(Registry.discover(), "attack-fits").status == "broken"  # it was imported


def test_unreadable_requirement_is_recorded(site: Any) -> None:
    site.install("mi-attack-odd", "", requires=["micore >=>= 1"])
    assert record(Registry.discover(), "attack-odd").status == "broken"


def test_broken_plugin_is_an_error_when_named(site: Any) -> None:
    site.install("mi-attack-raises", "1 / 0")
    site.install("mi-attack-old", "", requires=["micore<0.0.1"])
    registry = Registry.discover()
    with pytest.raises(PluginError, match="division by zero"):
        registry.find("attack", "raises")
    with pytest.raises(IncompatiblePluginError, match=r"needs micore<0\.0\.1"):
        registry.find("attack", "old")
    with pytest.raises(UnknownNameError):
        registry.find("attack", "something-else")


@pytest.mark.parametrize("name", ["attack-fine", "mi-attack-fine", "mi_attack_fine"])
def test_disabled_plugin_is_not_imported(site: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    site.install("mi-attack-fine", "1 / 0")
    monkeypatch.setenv("MI_DISABLED_PLUGINS", f"other, {name}")
    registry = Registry.discover()
    assert record(registry, "attack-fine").status == "disabled"
    assert registry.failed == tuple(r for r in registry.failed if r.name != "attack-fine")
    with pytest.raises(PluginError, match="is disabled") as caught:
        registry.find("attack", "fine")
    assert "MI_DISABLED_PLUGINS" in str(caught.value.hint)


def test_no_plugins(site: Any) -> None:
    site.install_attack("mi-attack-fine", "fine")
    assert Registry.discover(no_plugins=True).records == ()


def test_strict_names_all_broken_plugins(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("mi-attack-one", "1 / 0")
    site.install("mi-attack-two", "", requires=["micore>=99"])
    Registry.discover(strict=False)
    monkeypatch.setenv("MI_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match=r"mi-attack-one .*; .*mi-attack-two") as caught:
        Registry.discover()
    assert caught.value.exit_code == 4
    monkeypatch.setenv("MI_STRICT_PLUGINS", "0")
    Registry.discover()


def test_first_of_two_same_distributions_wins(site: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install_attack("mi-attack-fine", "fine")
    older = type(site)(tmp_path / "older")
    older.path.mkdir()
    older.install("mi-attack-fine", "1 / 0")
    monkeypatch.setattr("sys.path", [*__import__("sys").path, str(older.path)])
    assert [r.status for r in Registry.discover().records if r.distribution == "mi-attack-fine"] == ["ok"]


# --- names ----------------------------------------------------------------------------------------


def clashing() -> Registry:
    """Make a registry in which two distributions offer the attack ``same``."""
    one, two = attack("same"), attack("same", summary="Another")
    return Registry.from_plugins(
        {"dist-one": offering("mi_attacks", one, attack("other")), "dist-two": offering("mi_attacks", two)}
    )


def test_clash_names_both_and_a_prefix_picks_one() -> None:
    registry = clashing()
    with pytest.raises(NameClashError, match="dist-one and by dist-two") as caught:
        registry.find("attack", "same")
    assert caught.value.hint == "pick one, such as dist-one:same"
    assert registry.find("attack", "dist-two:same").spec.summary == "Another"
    assert registry.find("attack", "Dist_One:same").spec.summary == "A toy"
    assert registry.find("attack", "other").provider.name == "dist-one"


def test_unknown_name_suggests_and_tells_how_to_install() -> None:
    registry = Registry.from_plugins({"toys": offering("mi_attacks", attack("my-attack"))})
    with pytest.raises(UnknownNameError) as caught:
        registry.find("attack", "my-atack")
    assert caught.value.hint == "did you mean my-attack?"
    with pytest.raises(UnknownNameError) as caught:
        registry.find("attack", "zzz")
    assert caught.value.hint == "`mi list-plugins --kind attack` shows what there is"


def test_known_plugin_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("micore.known_plugins.KNOWN", {("attack", "famous"): "mi-attack-famous"})
    with pytest.raises(UnknownNameError) as caught:
        Registry().find("attack", "famous")
    assert caught.value.hint == "pip install mi-attack-famous"
    with pytest.raises(UnknownNameError) as caught:
        Registry().find("attack", "famos")
    assert caught.value.hint == "did you mean famous (pip install mi-attack-famous)?"


def test_unknown_distribution_prefix() -> None:
    with pytest.raises(UnknownNameError, match="'nobody:same'"):
        clashing().find("attack", "nobody:same")


def test_unknown_kind() -> None:
    with pytest.raises(UsageError, match="unknown kind"):
        Registry().entries("atack")


def test_entries_are_sorted_and_filtered_by_modality() -> None:
    registry = Registry.from_plugins(
        {
            "b": offering("mi_attacks", attack("zebra"), attack("ant", modality="text")),
            "a": offering("mi_defenses", TOYS["mi_defenses"]),
            "c": offering("mi_attacks", attack("bee", modality="any")),
            "d": offering("mi_modalities", specs.ModalitySpec(**{**COMMON, "name": "image"})),
        }
    )
    assert [entry.spec.name for entry in registry.entries("attack")] == ["ant", "bee", "zebra"]
    assert [entry.spec.name for entry in registry.entries(modality="image")] == [
        "image",
        "bee",
        "zebra",
        "toy",
    ]
    assert [entry.spec.name for entry in registry.entries("modality", "text")] == []


# --- loading --------------------------------------------------------------------------------------


def test_load_resolves_an_entry_and_a_spec() -> None:
    import json

    registry = Registry.from_plugins({"toys": offering("mi_attacks", attack("a"))})
    entry = registry.find("attack", "a")
    assert registry.load(entry) is json.loads
    assert registry.load(entry.spec) is json.loads


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("import no_such.part", "needs the Python package 'no_such", "pip install --upgrade toys"),
        ("1 / 0", "ZeroDivisionError", "this is a bug in toys"),
        ("Thing2 = 1", "AttributeError", "this is a bug in toys"),
        ("import mi_implementation.missing", "mi_implementation", "this is a bug in toys"),
    ],
)  # fmt: skip
def test_load_tells_a_missing_dependency_from_a_bug(site: Any, source: str, message: str, hint: str) -> None:
    (site.path / "mi_implementation.py").write_text(source)
    registry = Registry.from_plugins({"toys": offering("mi_attacks", attack("a", target="mi_implementation:Thing"))})
    with pytest.raises(PluginError, match=message) as caught:
        registry.load(registry.find("attack", "a"))
    assert hint in str(caught.value.hint)


def test_load_passes_on_what_the_plugin_says_itself(site: Any) -> None:
    (site.path / "mi_implementation.py").write_text("from micore.errors import DataError\nraise DataError('no file')")
    registry = Registry.from_plugins({"toys": offering("mi_attacks", attack("a", target="mi_implementation:Thing"))})
    with pytest.raises(Exception, match="no file") as caught:
        registry.load(registry.find("attack", "a"))
    assert type(caught.value).__name__ == "DataError"
