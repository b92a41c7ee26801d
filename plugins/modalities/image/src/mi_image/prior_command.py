"""``mi prior``: make, convert and look at generative priors of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from micore.cli.app import App
from micore.cli.options import data_options, data_request, machine_options

if TYPE_CHECKING:
    from micore.artifacts import Bundle

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("prior")
def command() -> None:
    """Make, convert and look at priors: the generative models that attacks search.

    A prior is a bundle, one .safetensors file. Attacks take it as `-p prior=FILE`.
    """


@command.command("convert")
@click.argument("weights", type=_FILE)
@click.option("-o", "--output", required=True, type=_FILE, help="The prior to write.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option(
    "--conv-clamp", default="256", metavar="NUMBER|none",
    help="What a state dict's layers are clamped to; pickles say it themselves.",
)  # fmt: skip
@click.pass_obj
def convert_command(app: App, weights: Path, output: Path, force: bool, conv_clamp: str) -> None:
    """Turn a StyleGAN2-ADA network into a prior.

    WEIGHTS is a pickle of the official PyTorch release (such as ffhq.pkl), which is read without running any code of
    it, or a state dict of its generator: .safetensors, or a file of torch.save.
    """
    _require_free(output, force)
    from mi_image.prior_bundle import stylegan_bundle
    from mi_image.stylegan2_conversion import convert
    from mi_image.stylegan_prior import build_stylegan
    from micore.files import file_digest
    from micore.runtime import Runtime

    state = convert(weights, _clamp(conv_clamp))
    with Runtime.create("cpu").seeded("stylegan", "parameters"):
        build_stylegan(state["arguments"], state["weights"], str(weights))  # weights that do not fit are refused here
    origin = {"converted": weights.name, "sha256": file_digest(weights)}
    bundle = stylegan_bundle(state, data={}, training=origin)
    bundle.save(output)
    app.result(f"{output}: {_describe(bundle)}")


@command.command("train")
@data_options(required=True)
@click.option("--kind", default="stylegan2", help="What to train: stylegan2.")
@click.option("-p", "parameters", multiple=True, metavar="KEY=VALUE", help="Training option, such as iterations=5000.")
@click.option("-o", "--output", required=True, type=_FILE, help="The prior to write.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@machine_options
@click.pass_obj
def train_command(
    app: App, data: str, data_root: str | None, data_options: tuple[str, ...], kind: str, parameters: tuple[str, ...],
    output: Path, force: bool, seed: int, compiled: bool, precision: str, device: str,
) -> None:  # fmt: skip
    """Train a prior on the public images of a data set.

    The defaults are for small pictures on a CPU. A training that was killed goes on when it is started again.
    """
    _require_free(output, force)
    from mi_image.prior_training import train_prior
    from micore.configs import parse_assignments
    from micore.errors import UsageError
    from micore.runtime import Runtime

    request = data_request(data, data_root, data_options)
    if request is None:
        raise UsageError("no data set", hint="give --data")
    runtime = Runtime.create(device, precision, compiled=compiled, seed=seed, progress=app.progress())
    values = parse_assignments(parameters)
    bundle = train_prior(app.registry, runtime, data=request, kind=kind, values=values, output=output)
    app.result(f"{output}: {_describe(bundle)}, trained in {bundle.card.training['seconds']:.0f} s")


@command.command("show")
@click.argument("prior", type=_FILE)
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Also write a PNG with N samples.")
@click.option("-o", "--output", type=_FILE, help="The PNG to write. [default: the prior's name with .png]")
@click.option("--psi", default=1.0, type=click.FloatRange(min=0), help="Truncation of the samples; 1: none.")
@click.option("--seed", default=0, help="The samples derive from it.")
@click.option("--json", "as_json", is_flag=True, help="Print the prior's card as JSON.")
@click.pass_obj
def show_command(
    app: App, prior: Path, samples: int | None, output: Path | None, psi: float, seed: int, as_json: bool
) -> None:
    """Say what a prior is, and draw samples of it."""
    from mi_image.prior_bundle import load_prior

    bundle = load_prior(prior)
    if as_json:
        app.json({**bundle.card.to_dict(), "fingerprint": bundle.fingerprint})
    else:
        app.details(_details(bundle))
    if samples is not None:
        picture = output or prior.with_suffix(".png")
        _write_samples(bundle, samples, psi, seed, picture)
        app.say(f"{picture}: {samples} samples")


def _write_samples(bundle: Bundle, n: int, psi: float, seed: int, path: Path) -> None:
    from mi_image.previews import grid
    from mi_image.prior_bundle import stylegan_of
    from mi_image.stylegan_prior import restore_stylegan
    from micore.files import atomic_path
    from micore.runtime import Runtime

    runtime = Runtime.create("cpu", seed=seed)
    prior = restore_stylegan(stylegan_of(bundle), runtime)
    picture = grid(prior.sample(n, runtime.rng("samples"), psi=psi))
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def _require_free(output: Path, force: bool) -> None:
    """Refuse to replace a file unasked, and places that cannot be written, before any work is done."""
    from micore.errors import UsageError
    from micore.files import require_writable

    if output.exists() and not force:
        raise UsageError(f"{output} exists already", hint="--force replaces it")
    require_writable(output)


def _clamp(text: str) -> float | None:
    from micore.errors import UsageError

    if text == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise UsageError(f"--conv-clamp {text}: a positive number, or none")
    return value


def _describe(bundle: Bundle) -> str:
    """Say in a few words what a prior is."""
    channels, size, _ = bundle.card.input.shape
    classes = f", {len(bundle.card.classes)} classes" if bundle.card.classes else ""
    return f"{bundle.card.model.name}, {size} px, {'colour' if channels == 3 else 'grey'}{classes}"


def _details(bundle: Bundle) -> dict[str, str | None]:
    card = bundle.card
    return {
        "prior": _describe(bundle),
        "arguments": _pairs(card.model.config),
        "parameters": f"{sum(tensor.numel() for tensor in bundle.weights.values()):,}",
        "data": f"{card.data['uri']} (public split)" if card.data else None,
        "made by": _pairs(card.training),
        "fingerprint": bundle.fingerprint,
    }


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={'none' if value is None else value}" for name, value in values.items())
