"""``mi quickstart``."""

from __future__ import annotations

from pathlib import Path

import click

from micore.cli.app import App

FIRST = "image"
"""The modality that is shown when none is named."""


@click.command()
@click.argument("modality", default=FIRST)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write; runs/quickstart, with the modality's name unless it is the first, when it is left out.",
)
@click.option("--data", metavar="NAME", help="A bundled data set; the modality's own when it is left out.")
@click.option("--plugin", metavar="NAME", help="The attack; the modality's first choice when it is left out.")
@click.option("--model", metavar="NAME", help="The target's architecture; likewise.")
@click.option("--preset", default="default", help="Settings of the attack.")
@click.option("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")
@click.option("--seed", default=0, help="All randomness derives from it.")
@click.pass_obj
def command(
    app: App, *, modality: str, output: Path | None, data: str | None, plugin: str | None, model: str | None,
    preset: str, device: str, seed: int,
) -> None:  # fmt: skip
    """Make a small target of MODALITY, attack it, judge the attack and write a report, on bundled data.

    What is there already is not done again: a second call continues a run that was stopped.
    """
    import time

    from micore.artifacts import Bundle, PluginUse
    from micore.cli.outcome import finish
    from micore.cli.train import describe
    from micore.data import DataRequest
    from micore.models import load_modality
    from micore.report import write_report
    from micore.runs import AttackRequest, Run, attack, resume
    from micore.runtime import Runtime
    from micore.training import train

    started = time.monotonic()
    spec = app.registry.find("modality", modality).spec
    data, model, plugin = (
        _chosen(given, getattr(spec, name), modality)
        for given, name in ((data, "default_dataset"), (model, "default_model"), (plugin, "default_attack"))
    )
    output = output or Path("runs") / ("quickstart" if modality == FIRST else f"quickstart-{modality}")
    target, directory = output / "target.safetensors", output / plugin
    if not target.exists():
        app.say(f"making the target: {model} on {data}")
        runtime = Runtime.create(device, seed=seed, progress=app.progress())
        train(app.registry, runtime, data=DataRequest.parse(data), model=PluginUse(name=model), output=target)
    app.result(describe(target, Bundle.load(target).card.metrics))
    app.say(f"attacking it: {plugin}")
    if (directory / "run.json").exists():
        run: Run = resume(app.registry, directory, progress=app.progress())
    else:
        request = AttackRequest(
            attack=PluginUse(name=plugin), model=str(target), preset=preset, data=DataRequest.parse(data), seed=seed,
            device=device,
        )  # fmt: skip
        run = attack(app.registry, request, directory, app.progress())
    if is_bundled(app, data):
        write_report(run, load_modality(app.registry, modality), DataRequest.parse(data).open(app.registry),
                     show_private=True)  # fmt: skip
    app.say(f"took {time.monotonic() - started:.0f} s")
    finish(app, run, as_json=False)


def is_bundled(app: App, data: str) -> bool:
    """Tell whether a data set comes with its package: nothing in it is anybody's secret."""
    return bool(getattr(app.registry.find("dataset", data.partition(":")[0]).spec, "bundled", False))


def _chosen(given: str | None, offered: str | None, modality: str) -> str:
    """Return what the user names, or else what the modality shows."""
    from micore.errors import UsageError

    if given is None and offered is None:
        raise UsageError(f"modality {modality!r} has no demonstration", hint="give --data, --model and --plugin")
    return given or str(offered)
