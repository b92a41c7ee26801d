"""Vec2Text: guesses the text behind an embedding, lets the target embed the guess, and corrects it, round after round.

Morris, Kuleshov, Shmatikov, Rush: "Text Embeddings Reveal (Almost) As Much As Text", EMNLP 2023 (arXiv:2310.06816).

Threat model: the embedding of a private text; the target embeds public texts of the adversary's and what the attack
writes.

1. The hypothesis: a decoder learns to write public texts behind their embeddings. The same as that of ``geia``, which
   shares it.
2. The corrector learns to write a public text from its embedding, the hypothesis' output for it, and the target's
   embedding of that output.
3. For each case the hypothesis writes texts; then in each round the corrector writes new ones from the ``beam`` nearest
   so far. The target embeds all; the nearest to the private embedding are given back.

Fidelity notes (paper / authors' code / here)
- Networks: T5, trained before, with an encoder; here one causal decoder for each, from scratch, with a tokenizer made
  of the public texts. The corrector reads [guess | its embedding | the difference | the embedding] in front of what it
  writes and begins as a copy of the hypothesis. The guess is padded to ``max_tokens``, and the padding is read too.
- An embedding becomes 16 vectors by a perceptron; here one by a linear map, which learns far more in a short training.
- The corrector is trained on the hypothesis' greedy outputs; ``outputs_temperature`` above 0 samples them, which is
  nearer to the mistakes that it meets on texts it never saw. Outputs that are right are left out, as by the authors
  (who compare embeddings).
- The authors' corrections are found by a beam search over tokens; here the likeliest text, token by token, and samples.
- Without a beam over texts the authors give back the last iterate; here always the nearest of all that were asked
  about. A round begins with the nearest so far, not with the last round's.
- A case ends early when a text's cosine reaches 0.99999. The authors' early stop never happens, as its best score is
  not stored.
- The presets ``default`` and ``smoke`` are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from mi_attack_vec2text.corrector import Corrector, Outputs, answers_to, first_outputs, train_corrector
from mi_attack_vec2text.rounds import Plan, correct, filled
from mi_text.inverting import (
    SMALL,
    TINY,
    Inverter,
    InverterConfig,
    learn_hypothesis,
    pairs_state,
    prepared_state,
    restore_pairs,
)
from mi_text.public_embeddings import nearest_public
from mi_text.steps import StepPlan
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

NAME = "vec2text"


class CorrectorConfig(InverterConfig):
    """Settings of the two networks; the defaults of the corrector's are the authors'."""

    corrections_texts: int = Field(
        5_000_000, ge=2, description="public texts that the corrector learns of (paper: all)"
    )
    outputs_temperature: float = Field(0.0, ge=0, description="of the hypothesis' outputs for them (paper: 0)")
    corrector_steps: int = Field(3_900_000, ge=1, description="of the corrector's training (paper: 100 passes of 5 M)")
    corrector_learning_rate: float = Field(1e-3, gt=0, description="highest of its schedule (code: 1e-3)")


class Vec2TextConfig(CorrectorConfig):
    """Settings of Vec2Text."""

    candidates: int = Field(0, ge=0, description="samples of the hypothesis besides the likeliest text (paper: 0)")
    rounds: int = Field(50, ge=0, description="rounds of correction at most (paper: 50)")
    beam: int = Field(8, ge=1, description="texts that a round begins with, and that are given back (code: 8)")
    branches: int = Field(8, ge=1, description="texts written from each, all but the first sampled (code: as the beam)")
    temperature: float = Field(0.7, gt=0, description="of all samples at attack time")


class Vec2Text:
    """The attack Vec2Text (see the module's documentation)."""

    Config: ClassVar[type[Config]] = Vec2TextConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            **SMALL, "corrections_texts": 4000, "outputs_temperature": 0.5, "corrector_steps": 400,
            "corrector_learning_rate": 5e-4, "candidates": 8, "rounds": 5, "beam": 4, "branches": 4,
        },
        "smoke": {
            **TINY, "steps": 120, "corrections_texts": 256, "outputs_temperature": 0.7, "corrector_steps": 60,
            "corrector_learning_rate": 5e-3, "candidates": 3, "rounds": 2, "beam": 2, "branches": 3,
        },
        "paper": {
            "vocabulary": 32_128, "max_tokens": 32, "width": 768, "layers": 12, "heads": 12, "steps": 3_900_000,
            "batch_size": 128, "learning_rate": 1e-3, "smoothing": 0.0,
        },
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(CorrectorConfig.model_fields)

    def __init__(self, config: Vec2TextConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train the hypothesis on public texts, then the corrector on what it wrote for them (section 3).

        Raises: UsageError without two public texts; BudgetExceeded.
        """
        config, stages = self.config, Stages(runtime)
        pairs, hypothesis = learn_hypothesis(config, target, public, stages)

        def inverter(stage: Runtime) -> Inverter:
            return Inverter.restore(config, hypothesis, stage)

        def write(stage: Runtime) -> Mapping[str, Any]:
            written = first_outputs(inverter(stage), pairs, config.corrections_texts, config.outputs_temperature)
            return {"texts": written}

        texts = stages.run("outputs", write)["texts"]
        answers = stages.run("answers", lambda stage: {"embeddings": answers_to(target, texts)})["embeddings"]
        outputs = Outputs(texts=texts, embeddings=answers)
        plan = StepPlan(
            steps=config.corrector_steps, batch_size=config.batch_size, learning_rate=config.corrector_learning_rate
        )
        corrector = stages.run(
            "corrector", lambda stage: train_corrector(inverter(stage), config, plan, pairs, outputs)
        )
        return Prepared(state={"pairs": pairs_state(pairs), "hypothesis": hypothesis, "corrector": corrector})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Guess the texts of all cases and correct them (section 3.3).

        Raises, after all was given back: BudgetExceeded when the budget did not last for all of it.
        """
        config, inverter = self.config, self._inverter(prepared, runtime)
        corrector = Corrector.restore(inverter, config, prepared_state(prepared, NAME)["corrector"])
        plan = Plan(rounds=config.rounds, beam=config.beam, branches=config.branches, temperature=config.temperature)
        proposed = inverter.propose(cases, config.candidates, config.temperature)
        yield from correct(proposed, corrector, target, plan, runtime)

    def control(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Iterator[Reconstruction]:
        """Write texts behind the mean public embedding: the hypothesis as a mere language model, likeliest first."""
        config = self.config
        n = max(config.candidates, config.beam - 1)
        for guesses in self._inverter(prepared, runtime).propose_unguided(cases, n, config.temperature):
            samples, scores = filled(*guesses.by_likelihood(), config.beam)
            yield Reconstruction(case=guesses.case, samples=samples, scores=scores)

    def baselines(
        self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Mapping[str, Sequence[Reconstruction]]:
        """Return the public text with the nearest embedding, as ``nearest-public``."""
        return {"nearest-public": nearest_public(cases, restore_pairs(prepared_state(prepared, NAME)["pairs"]))}

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the public texts, the outputs for them and what is written for a case; equal texts count once."""
        config = self.config
        texts = min(n_public, config.public or n_public)
        per_case = 1 + config.candidates + config.rounds * config.beam * config.branches
        return Forecast(
            preparation=Spending(queries=texts + min(texts, config.corrections_texts)),
            per_case=Spending(queries=per_case),
        )

    def _inverter(self, prepared: Prepared | None, runtime: Runtime) -> Inverter:
        return Inverter.restore(self.config, prepared_state(prepared, NAME)["hypothesis"], runtime)
