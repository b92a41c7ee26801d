"""``mi quickstart``."""

from __future__ import annotations

from pathlib import Path

import click

from micore.cli.app import App


@click.command()
@click.option(
    "-o",
    "--output",
    default="runs/quickstart",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write.",
)
@click.option("--data", default="digits", metavar="NAME", help="A bundled data set.")
@click.option("--plugin", default="plmi", metavar="NAME", help="The attack.")
@click.option("--model", default="small-cnn", metavar="NAME", help="The target's architecture.")
@click.option("--preset", default="default", help="Settings of the attack.")
@click.option("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")
@click.option("--seed", default=0, help="All randomness derives from it.")
@click.pass_obj
def command(app: App, output: Path, data: str, plugin: str, model: str, preset: str, device: str, seed: int) -> None:
    """Train a small target, attack it, judge the attack and write a report, on bundled data.

    What is there already is not done again: a second call continues a run that was stopped.
    """
    import time

    from micore.artifacts import Bundle, PluginUse
    from micore.cli.outcome import finish
    from micore.cli.train import describe
    from micore.data import DataRequest
    from micore.runs import AttackRequest, Run, attack, resume
    from micore.runtime import Runtime
    from micore.training import train

    started = time.monotonic()
    target, directory = output / "target.safetensors", output / plugin
    if not target.exists():
        app.say(f"training the target: {model} on {data}")
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
    app.say(f"took {time.monotonic() - started:.0f} s")
    finish(app, run, as_json=False)
