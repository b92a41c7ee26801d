"""What batching gains where a language model writes texts and tells likelihoods: candidates together, and one by one.

`python benchmarks/text_throughput.py [--width 256] [--layers 4] [--candidates 128] [--tokens 32]`: a small GPT of
random weights, as speed does not depend on them. Candidates per second and the ratio are of one run: both ways are
taken in turn and the quickest of three rounds is kept. Run it on an idle machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import click
import torch
from torch import Tensor

from mi_text.adapter import TextAdapter
from mi_text.builders import small_gpt
from mi_text.datasets.customers import open_customers
from mi_text.reference_model import AskedTarget
from mi_text.sampling import Sampling
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access, Ledger

ROUNDS = 3

Work = Callable[[AskedTarget, int], object]


def make_target(width: int, layers: int, runtime: Runtime) -> tuple[Target, list[str]]:
    """Return a language model behind its interface, and texts to ask it about."""
    data = open_customers(None, background=200, public=200)
    with runtime.seeded("throughput"):
        model = small_gpt(1, data.input, width=width, layers=layers)
    target = Target(
        model, access=Access.SCORES, adapter=TextAdapter(data.input), input_spec=data.input, classes=data.classes,
        ledger=Ledger(), runtime=runtime, role="language-model",
    )  # fmt: skip
    return target, list(data.private.texts)


def quickest(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the seconds of each way, taken in turn."""
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds


@click.command()
@click.option("--width", default=256, show_default=True)
@click.option("--layers", default=4, show_default=True)
@click.option("--candidates", default=128, show_default=True, help="Texts in all; a batch is 64.")
@click.option("--alone", default=16, show_default=True, help="How many of them are taken one by one.")
@click.option("--tokens", default=32, show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(width: int, layers: int, candidates: int, alone: int, tokens: int, device: str) -> None:
    """Measure writing and scoring."""
    runtime = Runtime.create(device)
    target, texts = make_target(width, layers, runtime)
    many, single = AskedTarget(target), AskedTarget(target, batch=1)
    texts = (texts * (candidates // len(texts) + 1))[:candidates]
    sampling = Sampling(max_tokens=tokens, top_k=40)

    def write(model: AskedTarget, n: int) -> list[str]:
        return model.generate([""] * n, sampling, runtime.rng("throughput", n))

    def score(model: AskedTarget, n: int) -> list[Tensor]:
        return model.likelihoods(texts[:n])

    works: dict[str, Work] = {"write": write, "score": score}
    for name, work in works.items():
        seconds = quickest({"together": partial(work, many, candidates), "alone": partial(work, single, alone)})
        rates = {"together": candidates / seconds["together"], "alone": alone / seconds["alone"]}
        click.echo(
            f"{name}: {rates['together']:.1f} candidates per second together, {rates['alone']:.1f} one by one: "
            f"{rates['together'] / rates['alone']:.1f} times"
        )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
