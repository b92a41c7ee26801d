"""Inversion of embeddings with means that are made without the target, and few of its answers.

``align``: Chen, Xu, Bjerva: "ALGEN: Few-shot Inversion Attacks on Textual Embeddings via Cross-Model Alignment and
Generation", ACL 2025. ``search``: Zhang, Morris, Shmatikov: "Universal Zero-shot Embedding Inversion", 2025
(arXiv:2504.00147).

Threat model: the adversary holds the embedding of a private text, and public texts. With ``align`` it knows the
target's embeddings of few of them, and asks nothing after that; with ``search`` it asks the encoder (access scores) all
along.

align
1. An encoder of the adversary's own embeds the public texts, and a decoder learns to write them from these embeddings.
   The target has no part in it.
2. Ridge regression on few pairs maps the target's embeddings to those of the own encoder.
3. The private embedding is mapped and decoded, greedily and by samples; the own encoder ranks what was written by its
   cosine to the mapped embedding.

search
1. A language model learns the public texts. The target has no part in it.
2. Beam search: the language model proposes the next tokens, the target embeds the texts so far, and those nearest to
   the private embedding go on.
3. Rounds of substitutions of single tokens of the best text.
All texts that were asked for compete: the best cosine never falls, and the reconstructions are the best of all.

Fidelity notes (paper / authors' code / here)
- align: the authors fine-tune Flan-T5, and the encoder that defines their space goes on changing under the decoder.
  Here the encoder is fixed: hashed words and pairs of words, weighted by rarity, projected at random; the decoder is
  small.
- align: their decoder is shown the attention mask of the true text at the time of attack, which gives its length away.
  Here nothing of the true text is shown.
- align: the ridge is on centred vectors, scaled to a mean square length of 1, and its penalty is chosen on held-out
  pairs; the authors try the same penalties on raw vectors.
- align: noise on the own embeddings in training (``noise``) makes the decoder bear an inexact map; it is ours. The
  authors decode with a beam of 3; here ``candidates`` are sampled besides the greedy text and ranked.
- search: the authors use an instruction-tuned model of 0.5 billion parameters and prompts; the one here is small, and
  trained on the public texts. Their code fills a part of the beam at random for diversity; here the best go on.
- search: their paraphrase loop and their trained correction model are left out; substitutions take their place.
- search: what is scored is the text that the tokens decode to, which the target may cut into other tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from mi_attack_embedding_transfer.alignment import Alignment, fit_alignment
from mi_attack_embedding_transfer.search import Course, SearchPlan, search
from mi_attack_embedding_transfer.settings import DECODING_FIELDS, PRESETS, EmbeddingTransferConfig
from mi_attack_embedding_transfer.writers import Writer, Writing, restore_writer, train_writer
from mi_text.public_embeddings import Pairs, nearest_public, observed_embeddings, public_pairs
from mi_text.steps import StepPlan
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded, CaseFailed, DataError, UsageError
from micore.kit.case_rows import tiled
from micore.kit.stages import Stages, shared
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class EmbeddingTransfer:
    """Few pairs or queries (see the module's documentation)."""

    Config: ClassVar[type[Config]] = EmbeddingTransferConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(EmbeddingTransferConfig.model_fields) - DECODING_FIELDS

    def __init__(self, config: EmbeddingTransferConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train what writes; ``align``: ask for the pairs and fit the map.

        Raises: UsageError without public texts.
        """
        if public is None or len(public) == 0:
            raise UsageError("this attack learns from public texts", hint="give a data set that has them")
        texts = list(dict.fromkeys(public.take(range(len(public)))))[: self.config.public]
        stages = Stages(runtime)
        pairs = self._pairs(target, public, runtime)
        state = {"writer": stages.run("writer", partial(self._trained, texts))}
        if pairs is None:
            return Prepared(state=state)
        own = restore_writer(state["writer"], self._writing(), runtime).encoder(pairs.texts)
        alignment = fit_alignment(pairs.embeddings, own, self.config.penalties)
        known = {"texts": list(pairs.texts), "embeddings": pairs.embeddings}
        return Prepared(state={**state, "pairs": known, "alignment": alignment.to_dict()})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Map and decode the embeddings, or search for texts that have them."""
        state = _state(prepared)
        writer = restore_writer(state["writer"], self._writing(), runtime)
        if self.config.method == "search":
            yield from self._searched(target, cases, writer, runtime)
            return
        alignment = Alignment.from_dict(state["alignment"])
        evidence = observed_embeddings(cases, len(alignment.mean))
        yield from self._decoded(cases, tiled(alignment, runtime.tile, evidence), writer, runtime)

    def control(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Iterator[Reconstruction]:
        """Decode the mean embedding of public texts; ``search``: draw texts from the language model."""
        writer = restore_writer(_state(prepared)["writer"], self._writing(), runtime)
        if self.config.method == "align":
            mean = writer.statistics[0].expand(len(cases), -1)
            yield from self._decoded(cases, mean, writer, runtime)
            return
        for case, texts in zip(cases, self._drawn(cases, None, self.config.beam, writer, runtime), strict=True):
            yield Reconstruction(case=case, samples=texts, scores=torch.zeros(len(texts)))

    def baselines(
        self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Mapping[str, Sequence[Reconstruction]]:
        """Return the text of the pairs whose embedding is nearest; nothing for ``search``, which knows no pairs."""
        state = _state(prepared)
        if "pairs" not in state:
            return {}
        known = state["pairs"]
        pairs = Pairs(texts=tuple(known["texts"]), embeddings=known["embeddings"].cpu())
        return {"nearest-public": nearest_public(cases, pairs)}

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: the pairs; or at most so many texts of a search, as none is asked for twice."""
        config = self.config
        if config.method == "align":
            return Forecast(preparation=Spending(queries=min(config.pairs, n_public)), per_case=Spending())
        beams = 1 + (config.search_steps - 1) * config.beam
        swept = config.sweeps * config.max_tokens
        return Forecast(preparation=Spending(), per_case=Spending(queries=(beams + swept) * config.top_k))

    # align --------------------------------------------------------------------------------------------------

    def _pairs(self, target: Target, public: Split, runtime: Runtime) -> Pairs | None:
        return public_pairs(target, public, self.config.pairs, runtime) if self.config.method == "align" else None

    def _decoded(
        self, cases: Sequence[Case], own: Tensor, writer: Writer, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Write texts from embeddings of one's own (cases, width), and rank them by the cosine to these."""
        written = self._drawn(cases, own, self.config.candidates, writer, runtime)
        still = torch.zeros(len(cases), self.config.max_tokens)
        greedy = writer.write(own, still, 0.0, runtime)
        for case, wanted, first, others in zip(cases, own, greedy, written, strict=True):
            texts = [first, *others]
            cosines = torch.cosine_similarity(writer.encoder(texts), wanted[None], dim=1)
            order = cosines.argsort(descending=True, stable=True)
            yield Reconstruction(case=case, samples=[texts[row] for row in order.tolist()], scores=cosines[order])

    def _drawn(
        self, cases: Sequence[Case], own: Tensor | None, n: int, writer: Writer, runtime: Runtime
    ) -> list[list[str]]:
        """Draw n texts for each case, by numbers of its own."""
        if n == 0:
            return [[] for _ in cases]
        numbers = [runtime.rng("candidates", case.id).uniform((n, self.config.max_tokens)) for case in cases]
        vectors = None if own is None else own.repeat_interleave(n, dim=0)
        texts = writer.write(vectors, torch.cat(numbers), self.config.temperature, runtime)
        return [texts[start : start + n] for start in range(0, len(texts), n)]

    # search -------------------------------------------------------------------------------------------------

    def _searched(
        self, target: Target, cases: Sequence[Case], writer: Writer, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Yield the best texts of each case's search, all that was found within the budget.

        Raises, after that: BudgetExceeded; CaseFailed when nothing that could be asked for was proposed for a case.
        """
        config = self.config
        plan = SearchPlan(
            beam=config.beam, top_k=config.top_k, steps=config.search_steps, sweeps=config.sweeps,
            penalty=config.repetition_penalty,
        )  # fmt: skip
        courses = [
            Course(case=case, evidence=values) for case, values in zip(cases, observed_embeddings(cases), strict=True)
        ]
        enough = search(courses, target, writer, plan, runtime)
        for course in courses:
            if course.known:
                yield _reconstruction(course, config.beam)
        if not enough:
            raise BudgetExceeded("the budget ended during the search", hint="raise --budget-queries")
        empty = {course.case.id: "the language model proposed no text" for course in courses if not course.known}
        if empty:
            raise CaseFailed(f"the search failed for {', '.join(empty)}", reasons=empty)

    # training -----------------------------------------------------------------------------------------------

    def _trained(self, texts: Sequence[str], runtime: Runtime) -> Mapping[str, Any]:
        """Take the network from the shelf, or train it: it depends on the public texts and these settings alone."""
        writing = self._writing()
        identity = {"texts": list(texts), "writing": repr(writing)}
        return shared("embedding-writer", identity, partial(train_writer, texts, writing), runtime)

    def _writing(self) -> Writing:
        config = self.config
        plan = StepPlan(steps=config.steps, batch_size=config.batch_size, learning_rate=config.learning_rate)
        return Writing(
            vocabulary=config.vocabulary, max_tokens=config.max_tokens, width=config.width, layers=config.layers,
            heads=config.heads, plan=plan, smoothing=config.smoothing,
            places=config.places if config.method == "align" else 0, noise=config.noise, own_width=config.own_width,
            buckets=config.buckets, pair_weight=config.pair_weight,
        )  # fmt: skip


def _reconstruction(course: Course, keep: int) -> Reconstruction:
    texts = course.best(keep)
    return Reconstruction(
        case=course.case, samples=texts, scores=torch.tensor([course.known[text] for text in texts]),
        history={"cosine": course.history}, complete=course.complete,
        snapshots=[item for item in course.snapshots if item.queries < len(course.known)],
    )  # fmt: skip


def _state(prepared: Prepared | None) -> Mapping[str, Any]:
    if prepared is None:
        raise DataError("embedding-transfer was not prepared")
    return prepared.state
