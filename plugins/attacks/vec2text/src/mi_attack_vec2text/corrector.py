"""The corrector: writes a text anew, from the evidence, an earlier guess, and what the target answered to that guess.

Morris et al., EMNLP 2023, section 3.2: p(text | e, guess, embedding of the guess).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mi_text.adapter import pad
from mi_text.asking import embed
from mi_text.decoder import Decoder
from mi_text.inverting import (
    EMBEDDING,
    Inverter,
    InverterConfig,
    batch_of_ids,
    encode,
    hypothesis_size,
    write_tiled,
)
from mi_text.public_embeddings import Pairs
from mi_text.sampling import Sampling
from mi_text.steps import StepPlan, train_steps
from mi_text.tokenizing import decode
from mi_text.transformer import Size
from micore.target import Target

GUESS, DIFFERENCE = "guess", "difference"
CONDITIONS = (GUESS, DIFFERENCE, EMBEDDING)
"""The vectors of the prefix behind the tokens of the guess: its embedding, how far that is off, and the evidence."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the hypothesis wrote behind public embeddings, and what the target answered to it, float32 (N, d), CPU."""

    texts: Sequence[str]
    embeddings: Tensor


def first_outputs(inverter: Inverter, pairs: Pairs, n: int, temperature: float) -> list[str]:
    """Return what the hypothesis writes behind the embeddings of the first n public texts."""
    embeddings = pairs.embeddings[:n]
    uniform = inverter.runtime.rng("first-outputs").uniform((inverter.max_tokens, len(embeddings)))
    return inverter.write(embeddings, temperature, uniform)[0]


def answers_to(target: Target, texts: Sequence[str]) -> Tensor:
    """Return the target's embeddings of texts, float32 (N, d), on the CPU."""
    return embed(target, texts).float().cpu()


def train_corrector(
    inverter: Inverter, config: InverterConfig, plan: StepPlan, pairs: Pairs, outputs: Outputs
) -> dict[str, Any]:
    """Train the corrector to write public texts from the hypothesis' outputs for them; return it as plain data.

    It begins as a copy of the hypothesis. Outputs that are right already teach nothing and are left out.
    """
    wrong = [row for row, text in enumerate(outputs.texts) if text != pairs.texts[row]] or [*range(len(outputs.texts))]
    targets, guesses = (
        encode(inverter.tokenizer, [texts[row] for row in wrong], config.max_tokens)
        for texts in (pairs.texts, outputs.texts)
    )
    context = pad(guesses, width=config.max_tokens)
    evidence, answers = inverter.standardised(pairs.embeddings[wrong]), inverter.standardised(outputs.embeddings[wrong])
    runtime = inverter.runtime
    decoder = runtime.place(begin(inverter, config))

    def losses(batch: Tensor) -> Tensor:
        parts = [part[batch].to(runtime.device) for part in (context, answers, evidence)]
        tokens = batch_of_ids([targets[row] for row in batch.tolist()]).to(runtime.device)
        return decoder.losses(prefix(decoder, *parts), tokens, config.smoothing)

    history = train_steps(decoder, losses, [len(row) for row in targets], plan, runtime, "corrector")
    weights = {name: tensor.detach().cpu().clone() for name, tensor in decoder.state_dict().items()}
    return {"weights": weights, "history": history}


def begin(inverter: Inverter, config: InverterConfig) -> Decoder:
    """Return a corrector that still writes as the hypothesis does, but for the vectors in front.

    Each condition begins with the hypothesis' projection; the places of the evidence and of the written tokens begin
    with those that the hypothesis has for them; the others are new.
    """
    decoder = _empty(inverter, config)
    weights = decoder.state_dict()
    known = inverter.decoder.state_dict()
    for name in weights:
        if name in known and weights[name].shape == known[name].shape:
            weights[name] = known[name].cpu().clone()
    for condition in CONDITIONS:
        for part in ("weight", "bias"):
            weights[f"conditions.{condition}.linear.{part}"] = (
                known[f"conditions.{EMBEDDING}.linear.{part}"].cpu().clone()
            )
    weights["network.positions.weight"][-(1 + config.max_tokens) :] = known["network.positions.weight"].cpu()
    decoder.load_state_dict(weights)
    return decoder


def prefix(decoder: Decoder, context: Tensor, answers: Tensor, evidence: Tensor) -> Tensor:
    """Return the prefix (N, T + 3, width) of guesses, their embeddings and the evidence.

    context: ids of the guesses (N, T), padded: the padding is looked at, as a sign like others, in training as in use.
    answers, evidence: standardised embeddings (N, d).
    """
    values = {GUESS: answers, DIFFERENCE: evidence - answers, EMBEDDING: evidence}
    return decoder.prefix({name: values[name] for name in CONDITIONS}, context)


@dataclass(frozen=True, kw_only=True)
class Corrector:
    """A trained corrector."""

    decoder: Decoder
    inverter: Inverter

    @classmethod
    def restore(cls, inverter: Inverter, config: InverterConfig, state: Mapping[str, Any]) -> Corrector:
        """Build it from what `train_corrector` gave, on the device, without gradients."""
        decoder = _empty(inverter, config)
        decoder.load_state_dict(dict(state["weights"]))
        return cls(decoder=inverter.runtime.place(decoder).eval().requires_grad_(False), inverter=inverter)

    def write(
        self, guesses: Sequence[str], answers: Tensor, evidence: Tensor, temperature: float, uniform: Tensor
    ) -> list[str]:
        """Return each guess corrected.

        answers: the target's embeddings of the guesses, evidence: what they should be, (N, d), CPU; uniform: each
        row's random numbers, (max_tokens, N).
        """
        inverter = self.inverter
        context = pad(encode(inverter.tokenizer, guesses, inverter.max_tokens), width=inverter.max_tokens)
        parts = context, inverter.standardised(answers), inverter.standardised(evidence)

        def prefixes(rows: Tensor) -> Tensor:
            return prefix(self.decoder, *(part[rows].to(inverter.runtime.device) for part in parts))

        sampling = Sampling(max_tokens=inverter.max_tokens, temperature=temperature)
        ids, _ = write_tiled(self.decoder, prefixes, uniform, sampling, inverter.runtime)
        return decode(inverter.tokenizer, ids.tolist())


def _empty(inverter: Inverter, config: InverterConfig) -> Decoder:
    hypothesis = hypothesis_size(config, inverter.tokenizer.to_str())
    size = Size(
        vocabulary=hypothesis.vocabulary, tokens=2 * config.max_tokens + len(CONDITIONS), width=hypothesis.width,
        layers=hypothesis.layers, heads=hypothesis.heads,
    )  # fmt: skip
    with inverter.runtime.seeded("corrector", "parameters"):
        return Decoder(size, {name: (inverter.width, 1) for name in CONDITIONS})
