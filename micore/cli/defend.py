"""``mi defend``."""

from __future__ import annotations

from pathlib import Path

import click

from micore.cli.app import App
from micore.cli.options import data_options, data_request, machine_options, uses


@click.command()
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--defense",
    "defenses",
    required=True,
    multiple=True,
    metavar="NAME[:KEY=VALUE,...]",
    help="Defense that acts on answers; may be repeated.",
)
@data_options(required=False)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The bundle to write."
)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@machine_options
@click.option("--json", "as_json", is_flag=True, help="Print the bundle's card as JSON.")
@click.pass_obj
def command(
    app: App, target: Path, defenses: tuple[str, ...], data: str | None, data_root: str | None,
    data_options: tuple[str, ...], output: Path, force: bool, seed: int, compiled: bool, precision: str, device: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Add defenses of its answers to a finished target.

    The new bundle carries them: whoever attacks it with less than white-box access meets them. What they have to learn
    they learn from private samples, those that the training kept aside where it did.
    """
    from micore.artifacts import Bundle
    from micore.cli.train import describe
    from micore.defending import defend
    from micore.errors import UsageError
    from micore.files import require_writable
    from micore.runtime import Runtime

    if output.exists() and not force:
        raise UsageError(f"{output} exists already", hint="--force replaces it")
    require_writable(output)
    runtime = Runtime.create(device, precision, compiled=compiled, seed=seed, progress=app.progress())
    bundle = defend(
        app.registry, runtime, Bundle.load(target), defenses=uses(defenses),
        data=data_request(data, data_root, data_options), data_root=data_root, output=output,
    )  # fmt: skip
    if as_json:
        app.json(bundle.card.to_dict())
    else:
        app.result(describe(output, bundle.card.metrics))
