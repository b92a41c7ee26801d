"""What the report says in plain words."""

from __future__ import annotations

ACCESS = {
    "label": "The adversary could send inputs and saw only the predicted class.",
    "scores": "The adversary could send inputs and saw the score of every class, nothing inside.",
    "white-box": "The adversary held the model itself: its weights, its gradients and all it outputs.",
}

CLASSIFIER = "classifier"

SEEN = {
    "encoder": "The adversary could send inputs and saw their embeddings, nothing inside.",
    "language-model": "The adversary could send texts and saw how likely their tokens are, nothing inside.",
    "masked-language-model": "The adversary could send texts with holes and saw what fills them, nothing inside.",
    "recogniser": "The adversary could send speech and saw how likely transcripts are, nothing inside.",
}
"""What scores are, by the role of a target that is no classifier."""


def access_text(access: str, role: str) -> str:
    """Say what an adversary with this access saw of a target of this role."""
    return SEEN.get(role, ACCESS["scores"]) if access == "scores" else ACCESS.get(access, "")


def units(goal: str) -> tuple[str, str]:
    """Return what figures of a goal rest on, one and many."""
    return ("class", "classes") if goal == "class" else ("case", "cases")


GOALS = {
    "class": "recover what the members of a class look like (a representative, not one training record)",
    "instance": "recover the very input of which the adversary holds a part, a poor copy or a representation",
    "corpus": "make the model give back records that it was trained on",
    "prompt": "recover the input behind an output that the adversary observed",
    "structure": "recover the edges of a graph",
    "attribute": "recover a sensitive attribute of a record",
}

SUBJECTS = {
    "attack": "what the attack recovered",
    "prior-samples": "floor: samples of the adversary's own prior, drawn without looking at the target",
    "no-target": "floor: what the attack gives unguided, from its prior and the evidence alone",
    "evidence": "floor: what the adversary held before the attack",
    "wrong-label": "floor: the attack's samples, judged as if they had been made for another class",
    "nearest-public": "floor: what the adversary's public data already held",
    "random-public": "floor: any of the adversary's public samples",
    "random-guess": "floor: secrets guessed by chance",
    "digit-prior": "floor: secrets guessed by how often their digits are in the adversary's public transcripts",
    "noise": "floor: noise",
    "mean-spectrum": "floor: noise with the mean long-term spectrum of the adversary's public clips",
    "oracle-spectrum": "floor: noise with the true long-term spectrum of the class, which no adversary has",
    "same-class": "check of the judge: other private samples of the class; it should say yes",
    "other-class": "check of the judge: private samples of another class; it should say no",
    "adversarial-noise": "control of the judges: noise fitted to the first judge, not to the target; it holds nothing",
    "holdout": "ceiling: real private-domain samples that the target was never trained on",
}

DIRECTIONS = {
    "up": "higher is more leakage",
    "down": "lower is more leakage",
    "none": "says nothing of leakage by itself",
}

STATUSES = {
    "finished": "finished",
    "budget": "stopped: the budget was spent",
    "interrupted": "interrupted by the user",
    "failed": "stopped by an error",
}

FACTS = {
    "weights": "other weights than the target",
    "architecture": "another architecture than the target",
    "seed": "another seed than the target",
    "augmentation": "other training augmentation than the target",
}
"""A judge's independence, fact by fact, as it reads when it holds."""
