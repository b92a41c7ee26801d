"""The glossary: one paragraph for each measurement and term, with what it does not show."""

from __future__ import annotations

import re

from micore.report.words import DIRECTIONS

TERMS = {
    "interval": """The range in brackets is a confidence interval (95 % unless said otherwise). It is made
        over classes, not over samples, because samples of one class are not independent. It does not cover
        another training of the target or another seed of the attack, and nothing is corrected for reading
        many figures at once.""",
    "floor": """What the same evaluator gives to samples that hold nothing of the target: samples of the
        adversary's prior, the attack's samples claimed for another class, the nearest public samples. An
        attack that does not beat its floors has shown no leakage, however good its samples look. Beating a
        floor says that the target gave something away, not how much harm that does.""",
    "ceiling": """What the same evaluator gives to real held-out samples of the attacked classes. It shows
        how well the evaluator works at all; it is not the most that an attack could ever score.""",
    "queries": """Samples that went forward through the target on the adversary's behalf; gradients are
        samples that went backward. They do not count what the adversary computed on models of its own.""",
    "class representative": """A sample that shows what a class has in common. Recovering one is not the
        same as recovering a training record; where the class is a person it can still
        identify that person.""",
}

_METRICS = {
    r"^vlm-acc": """Share of samples in which a vision-language model, shown them beside private samples of the class,
        sees the same person or object. What it refused or left unclear counts as no. It is worth what the model is
        worth: read it beside what that model says of pairs of private samples.""",
    r"^vlm-": """How often a vision-language model gave no answer, or one that is neither yes nor no. It says why
        its share of yes may be low; nothing was left out for it.""",
    r"-ratio$": """Distance to the nearest private sample of the class over that of held-out private samples: 1 is as
        near as a real sample that the target never saw. Far below 1 is nearer than that, such as a copy.""",
    r"lpips": """Distance from a sample to the very private sample, in the features of a network that learned to see on
        public photographs. It was fitted to people's judgement of small distortions of photographs, and has not been
        for faces or digits.""",
    r"-hit$": """How many private samples of the class are the nearest one of some sample of the attack. One says that
        all samples resemble the same one; it is at most the number of samples, and likeness is not asked.""",
    r"duplicate": """Share of samples that have a twin among the samples of their class. An attack that finds one
        picture again and again recovers less than its number of samples suggests; noise has no twins.""",
    r"false.positive": """Of the samples that the first independent model accepts, the share that several models
        together reject. A high share says that the accuracy of a single model means little here; a low one does not
        show that a person would agree, since all models learned from the same data.""",
    r"consensus|stable": """Share of samples that several independent models assign to the attacked class by a
        quorum; stable: also with noise and with blur. What fools one model passes less often, but the models
        learned from the same data and can err together: read it beside adversarial-noise, which holds nothing.""",
    r"knowledge": """Accuracy on real samples of networks that learned from the recovered samples alone. It shows
        how much of the classes they carry as a set. It is no likeness of any one of them to a private sample, and a
        prior that knows the domain can teach something too: read it beside chance and the controls.""",
    r"-truth": """Distance from a sample to the very private sample that its case is about, in the features of
        an independent model. Here the ceiling is another real sample of the same class: an attack that comes no
        nearer has recovered the class at most, not the sample.""",
    r"-hidden": """Likeness to the very private sample, over the part that the adversary did not see. A blurred
        mean of all possibilities can score better than a sharp and right completion, so read it beside
        the controls and the other figures.""",
    r"public": """How near the samples lie to the adversary's own public data. Very near means that the
        attack gave back what the adversary had before; far does not mean that anything private was found.""",
    r"reciprocal_?rank": """One over the place of the true class when all private classes are ranked by
        likeness to the sample; 1 is always first. It depends on how many classes stand in the line-up: a
        high rank among few classes is no identification among many.""",
    r"verif": """Share of samples whose distance to a private sample of the class is below a fixed
        threshold. It does not show that a person would agree, and false acceptances must be read beside
        it.""",
    r"acc|top_?\d|identif|hit": """Share of samples that an independent model assigns to the attacked
        class (among its first k choices, for a top-k figure). It does not show that a person would
        recognise the class: a model can be fooled by patterns that mean nothing to people. It says nothing
        of single training records.""",
    r"confid|prob": """How sure an independent model is of the attacked class. Models are often surer than
        they are right, so it ranks attacks but is no probability of recognition.""",
    r"divers|coverage|recall|vendi": """How much of the private variety the samples cover. High variety
        without likeness is no leakage, and one well-recovered class can do harm without any variety.""",
    r"fid|kid|frechet|realism|precision|density": """How much the samples look like data of the domain as
        a whole. A prior alone can score well here: it does not show that anything came from the target.""",
    r"dist|knn|nearest|mse|l2": """Distance from a sample to the nearest private sample of its
        class, in the evaluator's own features. A small distance means likeness in these features only, and
        distances of two evaluators cannot be compared. Read it beside the ceiling's.""",
    r"psnr|ssim|similar|cosine": """Likeness of a sample to the private one, measured directly. It can
        miss likeness that a person sees at once, such as a shifted or mirrored picture.""",
}
"""Paragraphs by a pattern of the measurement's name; the first that fits."""

_UNKNOWN = "A figure of this evaluator; `mi show {evaluator}` describes it. Alone it shows nothing."


def explain(name: str, evaluator: str, unit: str, direction: str) -> str:
    """Explain a measurement, with what it does not show."""
    known = next((text for pattern, text in _METRICS.items() if re.search(pattern, name.lower())), None)
    text = known or _UNKNOWN.format(evaluator=re.split(r"[@ ]", evaluator)[0])
    return f"{paragraph(text)} Unit: {unit or 'none'}; {DIRECTIONS.get(direction, direction)}."


def paragraph(text: str) -> str:
    """Return a text as one line."""
    return " ".join(text.split())
