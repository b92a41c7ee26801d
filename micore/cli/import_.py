"""``mi import``."""

from __future__ import annotations

from pathlib import Path

import click

from micore.cli.app import App
from micore.cli.options import data_options, data_request, uses


@click.command()
@click.argument("weights", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--model", required=True, metavar="NAME[:KEY=VALUE,...]", help="Architecture that the weights belong to.")
@data_options(required=True)
@click.option(
    "--mean", metavar="M,...", help="Mean that the model's input was normalised with, per channel, in [0, 1]."
)
@click.option("--std", metavar="S,...", help="Standard deviation likewise.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The bundle to write."
)
@click.option("--trust-pickle", is_flag=True, help="Read this one file even if that can run code hidden in it.")
@click.pass_obj
def command(
    app: App, weights: Path, model: str, data: str, data_root: str | None, data_options: tuple[str, ...],
    mean: str | None, std: str | None, output: Path, trust_pickle: bool,
) -> None:  # fmt: skip
    """Turn the weights of a model of yours into a target bundle.

    WEIGHTS is a state dict: .safetensors, or a file of torch.save, which is read without running code.
    The data set is the one that it was trained on; its held-out accuracy tells whether input and classes fit.
    """
    from micore.cli.train import describe
    from micore.errors import UsageError
    from micore.importing import import_weights

    request = data_request(data, data_root, data_options)
    if request is None:
        raise UsageError("no data set", hint="give --data")
    bundle = import_weights(
        app.registry, weights, model=uses([model])[0], data=request, mean=_numbers(mean), std=_numbers(std),
        trust_pickle=trust_pickle,
    )  # fmt: skip
    bundle.save(output)
    app.result(describe(output, bundle.card.metrics))


def _numbers(text: str | None) -> tuple[float, ...] | None:
    from micore.errors import UsageError

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{text!r} is no list of numbers", hint="such as 0.485,0.456,0.406") from error
