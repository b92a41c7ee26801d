"""An attack that knows of trapdoors, around another one.

Against targets that are trained by Trap-MID: Liu, Chen: "Trap-MID: Trapdoor-based Defense against Model Inversion
Attacks", NeurIPS 2024. A trapped target takes any input with a faint secret trigger for the trigger's class, so an
inversion finds triggers in place of what the class looks like, and its queries with such features are recognised.

Threat model: white box with public images. The adversary knows the defense and its settings, not the triggers.

1. For each class a pattern is searched that makes public images be taken for it when it is blended into them, as in
   Wang et al., "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks", IEEE S&P 2019.
2. The direction in which the patterns of a class move the target's penultimate features is the class's signature.
3. The base attack (``-p base=plmi``) sees the target with the logit of class c lowered by
   ``weight * scale * cos(features, signature_c)``: what looks like a trap is worth less to its search.

Fidelity notes
- No paper describes this attack; the authors of the defense name trigger reverse-engineering as a threat.
- Neural Cleanse searches a mask and a pattern and keeps the mask small. The blend of the defense is known here, so the
  mask is ``alpha`` everywhere.
- Features are seen from the mean of those of public images: without that, all of them have nearly one direction.
- ``scale`` is the mean range of an image's logits, so that ``weight`` means the same for every target.
- Scores and labels are the target's own, so the base attack reports its true confidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_attack_trap_aware.triggers import Traps, TriggerSearch, signatures
from micore.contracts import Attack, Case, Config, Forecast, HasForecast, Prepared, Reconstruction, Split
from micore.errors import DataError, ModelError
from micore.kit.features import features_and_logits
from micore.kit.stages import Stages
from micore.kit.target_views import ModuleView, TargetView
from micore.kit.wrappers import Wrapper, WrapperConfig
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class TrapAwareConfig(WrapperConfig):
    """Settings of the attack; the base attack's own are in ``base_options``."""

    base: str = Field("plmi", description="white-box attack to keep away from traps")
    alpha: float = Field(
        0.02, gt=0, lt=1, description="share of a trigger in a blend (Trap-MID: 0.02); its known value"
    )
    steps: int = Field(200, ge=1, description="Adam steps for a trigger")
    learning_rate: float = Field(0.05, gt=0, description="of the triggers' Adam")
    images: int = Field(8, ge=1, description="public images of one step, for each class")
    rows: int = Field(256, ge=1, description="largest batch of the search for triggers")
    signature_images: int = Field(64, ge=1, description="public images that each trigger is tried on")
    weight: float = Field(
        0.2, ge=0, description="how much looking like a trap lowers a logit; 0: the base attack alone"
    )


class TrapAware(Wrapper):
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = TrapAwareConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "smoke": {"base_preset": "smoke", "steps": 10, "images": 4, "signature_images": 16},
        "paper": {"base_preset": "paper", "steps": 1000},
    }
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(TrapAwareConfig.model_fields)

    def __init__(self, config: TrapAwareConfig) -> None:
        super().__init__(config)
        self.config = config

    def wrap(self, base: Attack) -> None:
        """Take the base attack."""
        super().wrap(base)
        if isinstance(base, HasForecast):
            self.forecast = lambda n_classes, n_public: self._forecast(
                base.forecast(n_classes, n_public), n_classes, n_public
            )

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Find triggers and signatures, then prepare the base attack on what it will see of the target.

        Raises: DataError without public images; ModelError for a target without penultimate features.
        """
        if public is None or len(public) == 0:
            raise DataError("trap-aware needs public images")
        stages = Stages(runtime)
        traps = stages.run("traps", lambda there: self._find(target, public, there))

        def prepare_base(there: Runtime) -> Mapping[str, Any]:
            prepared = self.wrapped().prepare(self._view(target, traps, runtime), public, there)
            return {} if prepared is None else {"state": dict(prepared.state)}

        return Prepared(state={"traps": dict(traps), "base": dict(stages.run("base", prepare_base))})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Run the base attack on the view of the target.

        Raises: DataError when nothing was prepared.
        """
        if prepared is None:
            raise DataError("trap-aware was not prepared")
        view = self._view(target, prepared.state["traps"], runtime)
        yield from self.wrapped().run(view, cases, self.base_prepared(prepared), runtime)

    def base_prepared(self, prepared: Prepared | None) -> Prepared | None:
        """Return what the base attack prepared."""
        base = {} if prepared is None else prepared.state["base"]
        return Prepared(state=base["state"]) if "state" in base else None

    def _forecast(self, base: Forecast, n_classes: int, n_public: int) -> Forecast:
        """Count the base's work, and for each class the search for its trigger and the trial of it."""
        config = self.config
        searched = n_classes * config.steps * config.images
        tried = (n_classes + 1) * min(config.signature_images, n_public)
        own = Spending(queries=searched + tried, gradients=searched)
        own.add(base.preparation)
        return Forecast(preparation=own, per_case=base.per_case)

    def _find(self, target: Target, public: Split, runtime: Runtime) -> Mapping[str, Tensor]:
        """Return triggers (K, ...), and the fields of `Traps`."""
        config, module = self.config, target.module
        images = public.take(torch.arange(len(public))).to(runtime.device)
        search = TriggerSearch(
            alpha=config.alpha, steps=config.steps, learning_rate=config.learning_rate, images=config.images,
            rows=config.rows,
        )  # fmt: skip
        rng = runtime.rng("trap-aware")
        with runtime.progress.track("searching triggers", target.n_classes) as report:
            triggers = search.run(module, images, target.n_classes, rng, report)
        tried = images[rng.permutation(len(images))[: config.signature_images].to(images.device)]
        traps = signatures(lambda batch: _look(module, batch), tried, triggers, config.alpha, config.rows)
        return {"triggers": triggers, **vars(traps)}

    def _view(self, target: Target, found: Mapping[str, Tensor], runtime: Runtime) -> TargetView:
        """Return the target with logits that are lowered for what looks like a trap."""
        traps = Traps(**{name: found[name].to(runtime.device) for name in Traps.__dataclass_fields__})
        module, strength = target.module, self.config.weight * traps.scale

        def forward(samples: Tensor) -> Tensor:
            features, logits = _look(module, samples)
            return logits - (strength * traps.likeness(features)).to(logits.dtype)

        return TargetView(target, module=ModuleView(module, forward))


def _look(module: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    features, logits = features_and_logits(module, images)
    if features.ndim != 2:
        raise ModelError(f"trap-aware needs one row of features per image; this target has {tuple(features.shape)}")
    return features, logits
