"""What a masked language model remembers: Gibbs sampling of hidden parts, ranked by pseudo-log-likelihood.

Nakamura et al.: "KART: Parameterization of Privacy Leakage Scenarios from Pre-trained Language Models", 2021
(arXiv:2101.00036). Lehman et al.: "Does BERT Pretrained on Clinical Notes Reveal Sensitive Data?", NAACL 2021.

Threat model: scores: the target fills masks in with the distributions of all places; the adversary knows its
tokenizer, and holds of a training text all but a hidden part (``masked``), this and a list of what it may be
(``candidates``), or nothing; public texts for the control.

1. ``masked``: for each length, chains begin with so many masks. One hidden token after the other is masked and drawn
   again. Every value that a chain shows after its burn-in is a candidate.
   ``nothing``: as ``masked`` with the whole text hidden, but for a prompt.
2. Candidates are put in the text, read again, and ranked by the mean log-probability of their tokens, each masked
   in turn.

Control: a masked language model of public texts does the same. What it also recovers is no secret of the corpus.

Fidelity notes (paper / authors' code / here)
- KART draws one place at random 500 times; here the places are passed in random order, sweep by sweep, so that none
  stays masked. Its docstring says that the most likely token is taken after the burn-in, its code draws among the 100
  most likely ones; so here.
- KART counts diseases that stand near a name in 100 texts; here values are ranked. Its prompts are ``prompts``.
- Lehman et al. take the mean log-probability with all tokens of a value masked at once, and calibrate over lengths;
  here tokens are masked in turn (Salazar et al., ACL 2020), and the mean is not calibrated; ``score=sum`` prefers
  values that end too early, as nothing in a masked model says where a text ends.
- The length of whole texts is drawn among the lengths of public texts.
- Presets ``default`` and ``smoke`` are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from mi_attack_mlm_inversion.chains import Sampler, Start, sample
from mi_attack_mlm_inversion.filling import (
    CONTROL_FIELDS,
    ControlConfig,
    Filler,
    control_state,
    filler_of,
    restore_control,
)
from mi_attack_mlm_inversion.ranking import pseudo_likelihoods, ranked
from mi_attack_mlm_inversion.reading import hidden, shown
from mi_text.adapter import TextAdapter
from mi_text.evidence import Hole, evidence_of
from mi_text.tokenizing import decode
from micore.contracts import Case, Config, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.runtime import Runtime
from micore.target import Target


class MaskedConfig(ControlConfig):
    """Settings of the inversion of masked language models."""

    evidence: Literal["masked", "candidates", "nothing"] = Field("masked", description="what is known of a text")
    chains: int = Field(2, ge=1, description="masked: chains for each length of the hidden part")
    value_tokens: int = Field(12, ge=1, description="masked: longest hidden part that is tried")
    sweeps: int = Field(4, ge=1, description="masked: passes of a chain over the hidden part")
    samples: int = Field(100, ge=1, description="nothing: texts that are sampled (KART: 100)")
    text_sweeps: int = Field(20, ge=1, description="nothing: passes of a chain over its text (KART: 500 steps)")
    prompts: tuple[str, ...] = Field(("",), min_length=1, description="nothing: how texts begin, in turn")
    burn_in: float = Field(0.5, ge=0, lt=1, description="share of the passes that is left out (KART: 0.5)")
    top_k: int = Field(100, ge=1, description="tokens that are drawn among after the burn-in (KART: 100)")
    temperature: float = Field(1.0, gt=0, description="of drawing tokens (KART: 1)")
    score: Literal["sum", "mean"] = Field("mean", description="of a value: the sum or mean over its tokens")
    keep: int = Field(16, ge=1, description="masked: values given back for each case")


class MaskedInversion:
    """The inversion of masked language models (see the module's documentation)."""

    Config: ClassVar[type[Config]] = MaskedConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "smoke": {
            "control_width": 32, "control_layers": 1, "control_heads": 2, "control_steps": 60,
            "control_batch_size": 32, "control_learning_rate": 1e-2, "chains": 2, "value_tokens": 4, "sweeps": 4,
            "samples": 8, "text_sweeps": 6, "top_k": 5, "keep": 6,
        },
        "paper": {"chains": 16, "sweeps": 20, "text_sweeps": 40, "control_steps": 50_000},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = CONTROL_FIELDS

    def __init__(self, config: MaskedConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train the control's model, and note how long public texts are; it asks the target nothing.

        Raises: DataError without public texts.
        """
        state = control_state(public, target.input_spec, self.config, runtime)
        texts = public.take(range(len(public))) if public is not None else []
        lengths = [max(1, len(row)) for row in TextAdapter(target.input_spec).encode(texts)]
        return Prepared(state={**state, "lengths": torch.tensor(lengths)})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Recover each case from what the target fills in."""
        yield from self._recovered(filler_of(target, runtime), cases, _state(prepared), runtime)

    def control(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Iterator[Reconstruction]:
        """Do the same with a masked language model that never saw the corpus."""
        state = _state(prepared)
        yield from self._recovered(restore_control(state, runtime), cases, state, runtime)

    def _recovered(
        self, filler: Filler, cases: Sequence[Case], state: Mapping[str, Any], runtime: Runtime
    ) -> Iterator[Reconstruction]:
        if self.config.evidence == "nothing":
            for case in cases:
                yield self._texts(filler, case, state["lengths"], runtime)
            return
        per_group = max(1, runtime.tile // (self.config.chains * self.config.value_tokens))
        for start in range(0, len(cases), per_group):
            group = cases[start : start + per_group]
            holes = [evidence_of(case, Hole) for case in group]
            if self.config.evidence == "masked":
                values = self._sampled(filler, group, holes, runtime)
            else:
                values = [list(dict.fromkeys(hole.candidates)) for hole in holes]
            for case, hole, own in zip(group, holes, values, strict=True):
                yield self._ranked(filler, case, hole, own)

    def _sampled(
        self, filler: Filler, cases: Sequence[Case], holes: Sequence[Hole], runtime: Runtime
    ) -> list[list[str]]:
        """Return the different values that the chains of each case show."""
        config, sweeps = self.config, self.config.sweeps
        starts = [
            Start(row=row, owner=case.id, uniform=drawn)
            for case, hole in zip(cases, holes, strict=True)
            for n in range(1, min(config.value_tokens, filler.width) + 1)
            for row in [hidden(filler, hole.before, hole.after, n)]
            for drawn in runtime.rng("chains", case.id, n).uniform((config.chains, sweeps, len(row.places), 2))
        ]
        found = sample(filler, starts, self._sampler(sweeps))
        values: dict[str, dict[str, None]] = {case.id: {} for case in cases}
        for start, states in zip(starts, found, strict=True):
            values[start.owner].update(dict.fromkeys(decode(filler.tokenizer, states)))
        return [[value for value in values[case.id] if value] or [""] for case in cases]

    def _ranked(self, filler: Filler, case: Case, hole: Hole, values: Sequence[str]) -> Reconstruction:
        """Rank values of a hole; the least likely is repeated where the chains found fewer than are to be kept."""
        rows = [shown(filler, hole.before, value, hole.after) for value in values]
        likelihoods = pseudo_likelihoods(filler, rows, case.id)
        best, scores = ranked(values, likelihoods, mean=self.config.score == "mean")
        if self.config.evidence == "masked":
            keep = self.config.keep
            best = [*best[:keep], *[best[-1]] * (keep - len(best))]
            scores = torch.cat([scores[:keep], scores[-1:].expand(max(0, keep - len(scores)))])
        return Reconstruction(case=case, samples=[hole.filled(value) for value in best], scores=scores)

    def _texts(self, filler: Filler, case: Case, lengths: torch.Tensor, runtime: Runtime) -> Reconstruction:
        """Sample whole texts and rank them by the mean log-probability of their tokens."""
        config, sweeps = self.config, self.config.text_sweeps
        prompts = [config.prompts[index % len(config.prompts)] for index in range(config.samples)]
        drawn = runtime.rng("lengths", case.id).integers(len(lengths), (config.samples,)).tolist()
        starts = []
        for index, prompt in enumerate(prompts):
            known = len(filler.tokenizer.encode(prompt, add_special_tokens=False).ids)
            row = hidden(filler, prompt, "", max(1, int(lengths[drawn[index]]) - known))
            uniform = runtime.rng("chains", case.id, index).uniform((sweeps, len(row.places), 2))
            starts.append(Start(row=row, owner=case.id, uniform=uniform))
        states = [chain[-1] for chain in sample(filler, starts, self._sampler(sweeps))]
        written = decode(filler.tokenizer, states)
        texts = [
            f"{prompt}{' ' if prompt and not prompt.endswith(' ') else ''}{text}"
            for prompt, text in zip(prompts, written, strict=True)
        ]
        likelihoods = pseudo_likelihoods(filler, [shown(filler, "", text, "") for text in texts], case.id)
        best, scores = ranked(texts, likelihoods, mean=True)
        return Reconstruction(case=case, samples=best, scores=scores)

    def _sampler(self, sweeps: int) -> Sampler:
        burn_in = int(self.config.burn_in * sweeps)
        return Sampler(sweeps=sweeps, burn_in=burn_in, top_k=self.config.top_k, temperature=self.config.temperature)


def _state(prepared: Prepared | None) -> Mapping[str, Any]:
    if prepared is None:
        raise DataError("mlm-inversion was not prepared")
    return prepared.state
