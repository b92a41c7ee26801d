"""Options that several commands share, and what they turn into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from micore.artifacts import PluginUse
    from micore.data import DataRequest
    from micore.runs import AttackRequest
    from micore.threat import Budget

F = TypeVar("F", bound=Callable[..., Any])


def data_options(*, required: bool) -> Callable[[F], F]:
    """Add ``--data``, ``--data-root`` and ``--data-option``."""

    def add(function: F) -> F:
        function = click.option(
            "-D", "--data-option", "data_options", multiple=True, metavar="KEY=VALUE",
            help="Option of the data set, such as size=64; may be repeated.",
        )(function)  # fmt: skip
        function = click.option(
            "--data-root", metavar="DIR", envvar="MI_DATA_ROOT", help="Where data sets that are not bundled lie."
        )(function)
        return click.option(
            "--data", required=required, metavar="NAME[:LOCATION]",
            help="Data set: digits, folder:PATH, hf:PATH..." + ("" if required else " [default: the target's own]"),
        )(function)  # fmt: skip

    return add


def machine_options(function: F) -> F:
    """Add ``--device``, ``--precision``, ``--compile`` and ``--seed``."""
    for option in (
        click.option("--seed", default=0, help="All randomness derives from it."),
        click.option("--compile", "compiled", is_flag=True, help="Compile networks (pays off in long runs only)."),
        click.option("--precision", default="fp32", metavar="fp32|bf16|fp16", help="Arithmetic of forward passes."),
        click.option("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute."),
    ):
        function = option(function)
    return function


def budget_options(function: F) -> F:
    """Add ``--budget-queries`` and ``--budget-seconds``."""
    for option in (
        click.option("--budget-seconds", type=float, metavar="S", help="Stop after this time; what is done is kept."),
        click.option("--budget-queries", type=int, metavar="N", help="Most samples sent through the target."),
    ):
        function = option(function)
    return function


def evaluator_options(function: F) -> F:
    """Add ``--evaluator``, ``--evaluator-model`` and ``--judges``."""
    for option in (
        click.option(
            "--judges", type=click.IntRange(min=1), metavar="N",
            help="Independent models that judge, each of another architecture. [default: 1, or as the run was]",
        ),
        click.option(
            "--evaluator-model", metavar="BUNDLE", help="Independent model that judges. [default: one is trained]"
        ),
        click.option(
            "-e", "--evaluator", "evaluators", multiple=True, metavar="NAME[:KEY=VALUE,...]",
            help="Evaluator; may be repeated. [default: all that fit]",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def attack_options(function: F) -> F:
    """Add everything that says what to attack, how, and who judges."""
    for option in reversed(
        (
            click.option("--plugin", required=True, metavar="NAME", help="Attack; `mi list-plugins --kind attack`."),
            click.option(
                "--model", required=True, metavar="BUNDLE|URI", help="Target: a bundle of `mi train`, or a URI."
            ),
            click.option(
                "-M",
                "--model-option",
                "model_options",
                multiple=True,
                metavar="KEY=VALUE",
                help="Option of a target that a URI names, such as timeout=10; may be repeated.",
            ),
            data_options(required=False),
            click.option(
                "--classes",
                "--cases",
                "choice",
                metavar="0-4,7",
                help="Which classes, or single samples, to attack. [default: all, or some samples]",
            ),
            click.option(
                "--evidence",
                metavar="NAME",
                help="What the adversary holds of each sample: centre, bottom... [default: by modality]",
            ),
            click.option(
                "--access",
                metavar="label|scores|white-box",
                help="What the adversary is granted. [default: what it needs]",
            ),
            click.option("--top-k", type=click.IntRange(min=1), metavar="K", help="Show only the K largest scores."),
            click.option(
                "--round",
                "decimals",
                type=click.IntRange(min=0),
                metavar="DIGITS",
                help="Show scores rounded to so many decimals.",
            ),
            budget_options,
            click.option("--preset", default="default", help="Named settings of the attack: default, smoke, paper..."),
            click.option(
                "-p",
                "parameters",
                multiple=True,
                metavar="KEY=VALUE",
                help="Setting of the attack; see `mi show NAME`.",
            ),
            evaluator_options,
            click.option("--batch", default=16, type=click.IntRange(min=1), help="Cases between two checkpoints."),
            click.option(
                "--tile", type=click.IntRange(min=1), help="Rows of one forward pass of a search. [default: by device]"
            ),
            machine_options,
        )
    ):
        function = option(function)
    return function


def attack_request(options: Mapping[str, Any]) -> AttackRequest:
    """Turn the options of `attack_options` into a request."""
    from micore.artifacts import PluginUse
    from micore.configs import parse_assignments
    from micore.runs import AttackRequest
    from micore.target import AnswerForm
    from micore.threat import Access

    return AttackRequest(
        attack=PluginUse(name=options["plugin"], config=parse_assignments(options["parameters"])),
        data=data_request(options["data"], options["data_root"], options["data_options"]),
        data_root=options["data_root"],
        access=Access.parse(options["access"]) if options["access"] else None,
        budget=budget(options["budget_queries"], options["budget_seconds"]),
        evaluators=uses(options["evaluators"]) or None,
        judges=options["judges"] or 1,
        model_options=parse_assignments(options["model_options"]),
        form=AnswerForm(top_k=options["top_k"], decimals=options["decimals"]),
        **{name: options[name] for name in PLAIN_OPTIONS},
    )


PLAIN_OPTIONS = (
    "model", "preset", "choice", "evidence", "seed", "device", "precision", "compiled", "batch", "tile",
    "evaluator_model",
)  # fmt: skip


def data_request(data: str | None, data_root: str | None, options: Sequence[str]) -> DataRequest | None:
    """Turn the data options into a request; None when no data set is named."""
    from micore.configs import parse_assignments
    from micore.data import DataRequest
    from micore.errors import UsageError

    if data is None:
        if options:
            raise UsageError("--data-option needs --data")
        return None
    return DataRequest.parse(data, parse_assignments(options), data_root)


def budget(queries: int | None, seconds: float | None) -> Budget:
    """Turn the budget options into a budget."""
    from micore.threat import Budget

    return Budget(queries=queries, seconds=seconds)


def uses(texts: Sequence[str]) -> tuple[PluginUse, ...]:
    """Turn ``name:key=value`` texts into plugin uses."""
    from micore.artifacts import PluginUse
    from micore.configs import parse_use

    return tuple(PluginUse(name=name, config=config) for name, config in map(parse_use, texts))
