"""Checks of attacks: that they keep to the threat model and leave the target alone."""

from __future__ import annotations

from micore.errors import AccessDenied
from micore.testing.attack_bench import AttackBench
from micore.testing.report import Check, require, skip
from micore.threat import Access, Budget


def target_is_left_unchanged(bench: AttackBench) -> None:
    """The next attack on the same target must meet the same target."""
    changed = bench.reference.target_changes
    require(not changed, f"the run changed the target: {', '.join(changed[:4])}")


def declared_access_is_needed(bench: AttackBench) -> str | None:
    """An attack that declares more than it needs is left out where it could be used."""
    declared = bench.spec.access
    used = bench.reference.ledger.used_access
    if declared == Access.LABEL:
        return "label access is the least there is"
    try:
        bench.run(bench.cases[:1], access=Access(declared - 1))
    except AccessDenied:
        return None
    require(
        False,
        f"declares {declared.label} access, but works with less (used: {used.label if used else 'none'})",
    )
    return None


def declared_access_is_enough(bench: AttackBench) -> None:
    """A run grants what the attack declares; asking for more breaks it."""
    try:
        used = bench.reference.ledger.used_access
    except AccessDenied as error:
        require(False, f"asks for more than the declared {bench.spec.access.label} access: {error.message}")
    else:
        granted = bench.spec.access
        require(used is None or used <= granted, f"used {used!r} with {granted!r} granted")


def declared_needs_are_enough(bench: AttackBench) -> str | None:
    """A run gives what the attack says it needs, and may have nothing else."""
    if "public" in bench.spec.needs:
        return "needs public data"
    require(
        bool(bench.reference.found),
        "an attack that declares no need of public data does not work without them",
    )
    return None


def ledger_is_complete(bench: AttackBench) -> str:
    """The cost in a report must be the true one: counted again at the target's first layer."""
    outcome = bench.reference
    for name in ("queries", "gradients"):
        claimed, real = getattr(outcome.ledger.total, name), getattr(outcome.counts, name)
        padded = outcome.ledger.padded[name]
        require(
            real == claimed + padded,
            f"the ledger counts {claimed} {name} (and {padded} of padding), there were {real}",
        )
    largest, tile = outcome.ledger.largest_padding, bench.runtime().tile
    require(largest < tile, f"{largest} rows called padding in a tile of {tile}: that hides queries")
    return f"{outcome.counts.queries} queries, {outcome.counts.gradients} gradients"


def budget_is_never_overspent(bench: AttackBench) -> str:
    """A budget is a promise about someone else's bill; what was done before it ended is kept."""
    total = bench.reference.ledger.total.queries
    if total < 2:
        skip("the attack asks the target next to nothing")
    outcome = bench.run(bench.cases, budget=Budget(queries=total // 2))
    spent, real = outcome.ledger.total.queries, outcome.counts.queries - outcome.ledger.padded["queries"]
    require(max(spent, real) <= total // 2, f"spent {max(spent, real)} queries of {total // 2}")
    yielded, all_cases = outcome.by_case().keys(), {case.id for case in bench.cases}
    done = outcome.stopped is not None or yielded == all_cases
    require(done, f"ended without BudgetExceeded, and without {', '.join(sorted(all_cases - yielded))}")
    problems = [bench.setting.problem(item.samples) for item in outcome.found]
    require(not any(problems), f"what was yielded is not valid: {next(filter(None, problems), None)}")
    return f"{len(outcome.found)} of {len(all_cases)} cases with half the queries"


THREAT_CHECKS: tuple[Check, ...] = (
    declared_access_is_enough,
    declared_access_is_needed,
    declared_needs_are_enough,
    ledger_is_complete,
    budget_is_never_overspent,
    target_is_left_unchanged,
)
