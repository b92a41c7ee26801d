"""``mi train``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from micore.cli.app import App
from micore.cli.options import data_options, data_request, machine_options, uses


@click.command()
@data_options(required=True)
@click.option(
    "--model", required=True, metavar="NAME[:KEY=VALUE,...]", help="Architecture; `mi list-plugins --kind model`."
)
@click.option("--defense", "defenses", multiple=True, metavar="NAME[:KEY=VALUE,...]", help="Defense; may be repeated.")
@click.option("-p", "parameters", multiple=True, metavar="KEY=VALUE", help="Training option, such as epochs=50.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The bundle to write."
)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@machine_options
@click.option("--json", "as_json", is_flag=True, help="Print the bundle's card as JSON.")
@click.pass_obj
def command(
    app: App, data: str, data_root: str | None, data_options: tuple[str, ...], model: str, defenses: tuple[str, ...],
    parameters: tuple[str, ...], output: Path, force: bool, seed: int, compiled: bool, precision: str, device: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Train a target model on a data set's private split.

    The bundle holds the weights and a card that says how they came about. Accuracy is measured on
    held-out data that had no part in the training.
    """
    from micore.configs import parse_assignments
    from micore.errors import UsageError
    from micore.files import require_writable
    from micore.runtime import Runtime
    from micore.training import train, training_config

    if output.exists() and not force:
        raise UsageError(f"{output} exists already", hint="--force replaces it")
    require_writable(output)
    request = data_request(data, data_root, data_options)
    if request is None:
        raise UsageError("no data set", hint="give --data")
    runtime = Runtime.create(device, precision, compiled=compiled, seed=seed, progress=app.progress())
    use = uses([model])[0]
    training = training_config(app.registry, use, parse_assignments(parameters))
    bundle = train(
        app.registry, runtime, data=request, model=use, training=training, defenses=uses(defenses),
        output=output,
    )  # fmt: skip
    for note in bundle.card.data["notes"]:
        app.say(f"note: {note}")
    if as_json:
        app.json(bundle.card.to_dict())
    else:
        app.result(describe(output, bundle.card.metrics))


def describe(path: Path, metrics: Mapping[str, Any]) -> str:
    """Say in a line what was trained."""
    n = metrics.get("holdout_samples")
    for name, text in _QUALITIES.items():
        if name in metrics:
            return f"{path}: {text.format(metrics[name])} on {n} held-out samples"
    return f"{path}: no held-out data to measure it on"


_QUALITIES = {
    "holdout_accuracy": "accuracy {:.1%}",
    "holdout_loss": "loss {:.3f}",
    "holdout_neighbour_overlap": "{:.1%} of the nearest neighbours kept",
}
