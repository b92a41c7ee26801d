"""What the adversary learns: the target's answers to public prompts, and a decoder that goes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mi_attack_prompt_inversion.config import InversionConfig
from mi_attack_prompt_inversion.features import fitted, restored
from mi_attack_prompt_inversion.networks import (
    AnswerInverter,
    Inverter,
    OutputInverter,
    encoded,
    output_ids,
    sizes,
    weights_of,
)
from mi_text.adapter import pad
from mi_text.asking import embed, generate
from mi_text.evidence import Observed, Outputs, evidence_of
from mi_text.observing import SAMPLED
from mi_text.steps import StepPlan, train_steps
from mi_text.tokenizing import train_tokenizer
from micore.contracts import Case, Split
from micore.errors import UsageError
from micore.kit.case_rows import tiled
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A trained inverter, ready to be used, with what was prepared."""

    inverter: Inverter
    tokenizer: Tokenizer
    state: Mapping[str, Any]
    runtime: Runtime

    def evidence(self, cases: Sequence[Case]) -> Tensor:
        """Return the cases' evidence as the inverter takes it, (C, ...), on the run's device.

        Raises: UsageError when a case holds something else, or of another size, than was prepared for.
        """
        if isinstance(self.inverter, AnswerInverter):
            answers = torch.stack([evidence_of(case, Observed).values for case in cases])
            known = len(self.inverter.features.mean)
            if answers.shape[1] != known:
                raise UsageError(
                    f"the evidence has {answers.shape[1]} numbers; the attack was prepared for {known}",
                    hint="prepare it for the target that the evidence comes from",
                )
            return self.inverter.features(answers).to(self.runtime.device)
        wanted = int(self.state["outputs"])
        texts = [evidence_of(case, Outputs).texts for case in cases]
        if min(len(item) for item in texts) < wanted:
            raise UsageError(
                f"a case holds {min(len(item) for item in texts)} outputs; the attack was prepared for {wanted}",
                hint="-p outputs=... with fewer",
            )
        ids = output_ids(self.tokenizer, [item[:wanted] for item in texts], int(self.state["output_tokens"]))
        return ids.to(self.runtime.device)

    def prefixes(self, evidence: Tensor) -> Tensor:
        """Return the prefix of each evidence, (N, P, width)."""
        return tiled(self.inverter.prefix, self.runtime.tile, evidence)

    def mean_prefix(self) -> Tensor:
        """Return the mean prefix of public evidence, (P, width): what a decoder has that holds nothing."""
        mean: Tensor = self.state["mean_prefix"].to(self.runtime.device)
        return mean


def learn(config: InversionConfig, target: Target, public: Split | None, runtime: Runtime) -> dict[str, Any]:
    """Ask the target about public prompts and train the inverter; return plain data.

    Raises: UsageError without public texts; AccessDenied where the target does not answer so; BudgetExceeded.
    """
    if public is None or len(public) == 0:
        raise UsageError("this attack learns from public texts", hint="give a data set that has them")
    texts = list(dict.fromkeys(public.take(range(len(public)))))[: config.pairs]
    stages = Stages(runtime)
    asked = stages.run("answers", lambda inner: _asked(config, target, texts, inner))
    return dict(stages.run("inverter", lambda inner: _trained(config, texts, asked, inner)))


def _asked(config: InversionConfig, target: Target, texts: Sequence[str], runtime: Runtime) -> dict[str, Any]:
    if config.evidence == "next-token":
        return {"answers": embed(target, texts).cpu()}
    prompts = [text for text in texts for _ in range(config.outputs)]
    found = [text.strip() for text in generate(target, prompts, SAMPLED, runtime.rng("public outputs"))]
    return {"outputs": found}


def _trained(
    config: InversionConfig, texts: Sequence[str], asked: Mapping[str, Any], runtime: Runtime
) -> dict[str, Any]:
    state: dict[str, Any] = {
        "evidence": config.evidence, "texts": list(texts), "tokenizer": train_tokenizer(texts, config.vocabulary),
        "width": config.width, "heads": config.heads, "layers": config.layers, "max_tokens": config.max_tokens,
        "encoder_layers": config.encoder_layers, "output_tokens": config.output_tokens, "outputs": config.outputs,
    }  # fmt: skip
    tokenizer = Tokenizer.from_str(state["tokenizer"])
    state["vocabulary"] = tokenizer.get_vocab_size()
    if config.evidence == "next-token":
        features = fitted(asked["answers"], config.form, config.places, config.dimensions, runtime)
        state |= {"prefix": config.places, "features": features.state()}
        evidence, keys = features(asked["answers"]), features(asked["answers"])
    else:
        outputs = [
            asked["outputs"][start : start + config.outputs]
            for start in range(0, len(asked["outputs"]), config.outputs)
        ]
        state["prefix"] = config.outputs * config.output_places
        evidence = output_ids(tokenizer, outputs, config.output_tokens)
        keys = bags(evidence, state["vocabulary"])
    inverter = _built(state, runtime)
    _fit(config, inverter, evidence, encoded(tokenizer, texts, config.max_tokens), runtime)
    prefixes = tiled(inverter.prefix, runtime.tile, *[evidence.to(runtime.device)])
    return {**state, "weights": weights_of(inverter), "keys": keys.half(), "mean_prefix": prefixes.mean(dim=0).cpu()}


def _built(state: Mapping[str, Any], runtime: Runtime) -> Inverter:
    size, encoder = sizes(state)
    with runtime.seeded("inverter", "parameters"):
        if state["evidence"] == "next-token":
            return runtime.place(AnswerInverter(size, restored(state["features"]), int(state["prefix"])))
        return runtime.place(OutputInverter(size, encoder, int(state["prefix"]) // int(state["outputs"])))


def _fit(
    config: InversionConfig, inverter: Inverter, evidence: Tensor, rows: Sequence[Sequence[int]], runtime: Runtime
) -> None:
    def losses(chosen: Tensor) -> Tensor:
        tokens = pad([rows[row] for row in chosen.tolist()]).to(runtime.device)
        return inverter.decoder.losses(inverter.prefix(evidence[chosen].to(runtime.device)), tokens)

    plan = StepPlan(steps=config.steps, batch_size=config.batch_size, learning_rate=config.learning_rate)
    train_steps(inverter, losses, [len(row) for row in rows], plan, runtime, "inverter")


def restore(state: Mapping[str, Any], runtime: Runtime) -> Learned:
    """Return the inverter that `learn` trained."""
    inverter = _built(state, runtime)
    inverter.load_state_dict(dict(state["weights"]))
    return Learned(
        inverter=inverter.requires_grad_(False).eval(), tokenizer=Tokenizer.from_str(state["tokenizer"]), state=state,
        runtime=runtime,
    )  # fmt: skip


def bags(outputs: Tensor, vocabulary: int) -> Tensor:
    """Return how often each token stands in the outputs of a prompt, as its square root, float32 (N, V)."""
    flat = outputs.flatten(1)
    counts = torch.zeros(len(flat), vocabulary, device=outputs.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float32))
    counts[:, 0] = 0  # padding
    return counts.sqrt()
