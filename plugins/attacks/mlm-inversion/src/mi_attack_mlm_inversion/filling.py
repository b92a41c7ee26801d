"""Who fills in what is hidden: the target, or the adversary's own masked language model, behind one function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from tokenizers import Tokenizer
from torch import Tensor

from mi_text.adapter import TextAdapter
from mi_text.masked_model import FILL, MaskedLanguageModel
from mi_text.steps import StepPlan, learn_texts
from mi_text.tokenizing import MASK, MASK_ID, PAD_ID, TOKENIZER, UNKNOWN_ID, tokenizer_of
from mi_text.transformer import Size
from micore.contracts import Config, Split
from micore.errors import DataError, ModelError
from micore.inputs import InputSpec
from micore.kit.case_rows import tiled
from micore.kit.stages import shared
from micore.runtime import Runtime
from micore.target import Target

CONTROL_FIELDS = frozenset(
    {"control_width", "control_layers", "control_heads", "control_steps", "control_batch_size", "control_learning_rate"}
)
READ_OPTIONS = (TOKENIZER, "closing_id")


class ControlConfig(Config):
    """Settings of the adversary's masked model, which never saw the corpus."""

    control_width: int = Field(256, ge=1, description="width of the control's model; a multiple of control_heads")
    control_layers: int = Field(4, ge=1, description="layers of the control's model")
    control_heads: int = Field(4, ge=1, description="attention heads of the control's model")
    control_steps: int = Field(2000, ge=1, description="steps of its training on public texts")
    control_batch_size: int = Field(64, ge=1, description="texts of one such step")
    control_learning_rate: float = Field(1e-3, gt=0, description="of its training, after warm-up")


@dataclass(frozen=True, kw_only=True)
class Filler:
    """Fills tokens in.

    spec: the input that it reads; target: who is asked and charged, None: ``module`` is the adversary's own.
    """

    spec: InputSpec
    runtime: Runtime
    target: Target | None = None
    module: MaskedLanguageModel | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """What texts are split by."""
        return tokenizer_of(self.spec)

    @property
    def width(self) -> int:
        """Tokens of every row: the longest text, so that a row's arithmetic does not depend on its neighbours."""
        return self.spec.shape[0]

    @property
    def pad_id(self) -> int:
        """Id of the token that fills rows up."""
        return int(self.spec.options.get("pad_id", PAD_ID))

    @property
    def mask_id(self) -> int:
        """Id of the token that hides another.

        Raises: ModelError when the tokenizer has none.
        """
        if self.module is not None:  # networks of this kind learn with a mask of their own, whatever the tokenizer's
            return MASK_ID
        found = next((self.tokenizer.token_to_id(name) for name in (MASK, "[MASK]")
                      if self.tokenizer.token_to_id(name) is not None), None)  # fmt: skip
        if found is None:
            raise ModelError("the target's tokenizer has no mask token", hint="attack a masked language model")
        return int(found)

    def distributions(self, ids: Tensor, places: Tensor, owners: Sequence[str]) -> Tensor:
        """Return the distributions of the tokens at one place of each row, (N, V), on the run's device.

        ids: int64 (N, width); places: int64 (N,); owners: ids of the cases that pay. Raises: BudgetExceeded.
        """

        def read(part: Tensor, where: Tensor) -> Tensor:
            found: Tensor = self._fill(part).to(part.device)
            return found[torch.arange(len(part), device=part.device), where].float()

        ledger = self.target.ledger if self.target is not None else None
        return tiled(read, self.runtime.tile, ids, places, ledger=ledger, owners=owners)

    def _fill(self, ids: Tensor) -> Tensor:
        if self.target is not None:
            answers: Tensor = self.target.ask(FILL, ids)
            return answers
        if self.module is None:
            raise ModelError("nobody fills anything in: neither a target nor a model was given")
        found: Tensor = self.module.serve(FILL, ids)
        return found


def filler_of(target: Target, runtime: Runtime) -> Filler:
    """Return the target as a filler."""
    return Filler(spec=target.input_spec, runtime=runtime, target=target)


def control_state(public: Split | None, spec: InputSpec, config: ControlConfig, runtime: Runtime) -> dict[str, Any]:
    """Train the control's model on public texts with the target's tokenizer, or take it from the runtime's shelf.

    Raises: DataError without public texts.
    """
    if public is None or len(public) == 0:
        raise DataError("mlm-inversion needs public texts for its control", hint="give a data set that has them")
    texts = tuple(dict.fromkeys(public.take(range(len(public)))))
    settings = {name: getattr(config, name) for name in sorted(CONTROL_FIELDS)}
    options = {name: spec.options[name] for name in READ_OPTIONS if name in spec.options}
    size: dict[str, Any] = {
        "vocabulary": TextAdapter(spec).vocabulary, "tokens": spec.shape[0], "width": config.control_width,
        "layers": config.control_layers, "heads": config.control_heads, "dropout": 0.1,
    }  # fmt: skip
    identity = {"texts": list(texts), "settings": settings, "options": options, "size": size}

    def work(inner: Runtime) -> Mapping[str, Any]:
        return {"weights": _trained(texts, spec, Size(**size), config, inner)}

    weights = shared("masked-control", identity, work, runtime)["weights"]
    return {"weights": weights, "size": size, "options": options, "tokens": spec.shape[0]}


def restore_control(state: Mapping[str, Any], runtime: Runtime) -> Filler:
    """Return the control's model as a filler."""
    with runtime.seeded("restore"):
        module = MaskedLanguageModel(Size(**state["size"]))
    module.load_state_dict(dict(state["weights"]))
    spec = InputSpec(shape=(int(state["tokens"]),), options=dict(state["options"]))
    return Filler(spec=spec, runtime=runtime, module=runtime.place(module.requires_grad_(False).eval()))


def _trained(
    texts: Sequence[str], spec: InputSpec, size: Size, config: ControlConfig, runtime: Runtime
) -> dict[str, Tensor]:
    with runtime.seeded("control", "parameters"):
        module = MaskedLanguageModel(size)
    runtime.place(module)
    rows = [row or [UNKNOWN_ID] for row in TextAdapter(spec).encode(texts)]
    plan = StepPlan(
        steps=config.control_steps, batch_size=config.control_batch_size, learning_rate=config.control_learning_rate
    )
    weights, _ = learn_texts(module, rows, plan, runtime, "control model")
    return weights
