"""``mi serve``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from micore.cli.app import App

if TYPE_CHECKING:
    from micore.target import Target

TOKEN = "MI_SERVE_TOKEN"
"""Environment variable with the token that requests must bear; no token is asked for without it."""


@click.command("serve")
@click.argument("model", metavar="TARGET")
@click.option("--host", default="127.0.0.1", help="Address to listen at; another one opens the server to others.")
@click.option("--port", default=8080, type=click.IntRange(0, 65535), help="Port; 0 chooses a free one.")
@click.option("--name", default="target", help="Name of the model in its address.")
@click.option("--access", default="scores", type=click.Choice(["label", "scores"]), help="What is answered.")
@click.option("--top-k", type=click.IntRange(min=1), metavar="K", help="Answer only the K largest scores.")
@click.option("--round", "decimals", type=click.IntRange(min=0), metavar="DIGITS", help="Round the scores.")
@click.option("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")
@click.pass_obj
def command(
    app: App, model: str, host: str, port: int, name: str, access: str, top_k: int | None, decimals: int | None,
    device: str,
) -> None:  # fmt: skip
    """Serve a target by KServe's protocol, so that it can be attacked as if it were somebody else's.

    TARGET is a bundle of `mi train`. Its defenses at inference time are at work. With MI_SERVE_TOKEN in the
    environment, requests must bear this token. It is a server for experiments: one process, no TLS.
    """
    import uvicorn

    from mi_model_serve.app import Served, create_app

    _check_name(name)
    served = Served(name=name, target=_target(app, model, access, top_k, decimals, device))
    config = uvicorn.Config(
        create_app(served, os.environ.get(TOKEN)), host=host, port=port, log_level="warning", access_log=False
    )
    socket = config.bind_socket()
    address = socket.getsockname()
    app.result(f"http://{address[0]}:{address[1]}/v2/models/{name}")
    uvicorn.Server(config).run(sockets=[socket])
    app.result(f"{served.counter.samples} samples were answered")


def _check_name(name: str) -> None:
    from micore.errors import UsageError
    from micore.specs import NAME

    if not NAME.fullmatch(name):
        raise UsageError(f"--name {name!r} must be like 'my-model'")


def _target(app: App, model: str, access: str, top_k: int | None, decimals: int | None, device: str) -> Target:
    """Open the target with the access that is answered.

    Raises: MiError.
    """
    from micore.external import SourceRequest
    from micore.models import load_modality, load_target, open_target
    from micore.runtime import Runtime
    from micore.target import AnswerForm
    from micore.threat import Access, Ledger

    runtime = Runtime.create(device)
    loaded = load_target(app.registry, SourceRequest(uri=model, runtime=runtime))
    modality = load_modality(app.registry, loaded.card.modality)
    form = AnswerForm(top_k=top_k, decimals=decimals)
    return open_target(
        app.registry,
        loaded,
        access=Access.parse(access),
        ledger=Ledger(),
        runtime=runtime,
        modality=modality,
        form=form,
    )
