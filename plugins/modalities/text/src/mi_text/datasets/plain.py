"""Sentences without personal data, of another domain than the records: weather, sport, cooking."""

from __future__ import annotations

import random

from mi_text.datasets.pools import words_of
from mi_text.datasets.templates import read_templates

PLAIN = read_templates((
    "There will be {sky} over the {region} {daypart}, with {wind} winds from the {compass}.",
    "{daypart} the {region} will get {sky} and about {degrees} degrees.",
    "The {wind} breeze from the {compass} brings {sky} to the {region} {daypart}.",
    "After {sky} the {region} cooled down to {degrees} degrees {daypart}.",
    "The {team} beat the {rival} {high} to {low} with {move} {moment}.",
    "{moment} the keeper of the {team} stopped {move} of the {rival}.",
    "The trainer praised {move} of the {team} {moment} against the {rival}.",
    "Fans cheered {moment} when the {team} answered the {rival} with {move}.",
    "{cook} the {vegetable} with {spice} for {minutes} minutes, then stir in the {dairy}.",
    "Serve the {dish} of {vegetable} hot, with {spice} and a spoonful of {dairy}.",
    "Knead {grams} grams of flour with {dairy} and {spice} before the {vegetable} goes in.",
    "Let the {dish} of {vegetable} rest {minutes} minutes under a pinch of {spice}.",
))  # fmt: skip

VALUES: dict[str, tuple[str, ...]] = {
    "sky": (
        "light drizzle", "heavy rain", "dense fog", "thick cloud", "bright sunshine", "wet snow", "freezing sleet",
        "distant thunder", "scattered hail", "low mist", "clear sky", "sudden showers",
    ),
    "region": (
        "northern hills", "river valley", "rocky coast", "high plateau", "grassy plains", "lake shore",
        "eastern slopes", "outer islands", "mountain passes", "marshes", "desert basin", "pine forests", "delta",
        "foothills",
    ),
    "daypart": (
        "at dawn", "before noon", "at midday", "during the afternoon", "at dusk", "overnight", "towards sunset",
        "after midnight",
    ),
    "wind": ("gentle", "strong", "gusty", "weak", "steady", "icy", "warm", "stormy", "humid", "dry"),
    "compass": ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest"),
    "degrees": tuple(str(n) for n in range(1, 41)),
    "team": (
        "hawks", "wolves", "comets", "sharks", "falcons", "tigers", "rockets", "pirates", "dragons", "bears",
        "eagles", "lions", "panthers", "vikings", "knights", "stags",
    ),
    "rival": (
        "giants", "badgers", "cobras", "ravens", "bulls", "otters", "hornets", "titans", "raiders", "foxes",
        "jaguars", "owls", "cyclones", "mustangs", "chargers", "gulls",
    ),
    "high": ("5", "6", "7", "8", "9"),
    "low": ("0", "1", "2", "3", "4"),
    "move": (
        "a header", "a long pass", "a volley", "a quick counterattack", "a free kick", "a sliding tackle",
        "a backhand", "a corner kick", "a daring dribble", "an overhead kick", "a lob", "a penalty", "a rebound",
        "a sprint down the wing",
    ),
    "moment": (
        "in extra time", "right after kickoff", "shortly before halftime", "in the final seconds",
        "early in the second half", "during the replay", "in the opening round", "at the semifinal",
        "throughout the derby", "in the third quarter",
    ),
    "cook": ("fry", "roast", "steam", "grill", "braise", "toast", "boil", "blanch", "bake", "sear"),
    "vegetable": (
        "carrots", "onions", "leeks", "mushrooms", "zucchini", "eggplant", "peppers", "potatoes", "spinach", "cabbage",
        "lentils", "chickpeas", "tomatoes", "fennel", "pumpkin", "beets", "celery", "asparagus",
    ),
    "spice": (
        "thyme", "cumin", "paprika", "nutmeg", "oregano", "turmeric", "cinnamon", "parsley", "garlic", "ginger",
        "coriander", "dill", "saffron", "sea salt", "cloves", "cardamom",
    ),
    "dairy": (
        "butter", "yogurt", "sour cream", "melted cheese", "whole milk", "ricotta", "feta", "buttermilk", "parmesan",
        "mascarpone", "cottage cheese", "whipped cream",
    ),
    "dish": (
        "soup", "stew", "gratin", "curry", "risotto", "casserole", "omelette", "pie", "salad", "noodles", "dumplings",
        "tart", "lasagna", "chowder", "pilaf", "goulash",
    ),
    "minutes": tuple(str(n) for n in range(3, 46)),
    "grams": tuple(str(25 * n) for n in range(4, 41)),
}  # fmt: skip
"""What stands in the places of `PLAIN`: tens of thousands of sentences by each template."""


def write_plain(rng: random.Random, taken: set[str]) -> str:
    """Return a sentence in lower case that is not yet taken, and take it."""
    while True:
        template = rng.choice(PLAIN)
        text = template.text.format_map({slot: rng.choice(VALUES[slot]) for slot in template.slots}).lower()
        if text not in taken:
            taken.add(text)
            return text


def plain_words() -> set[str]:
    """Return all words that these sentences can have."""
    return words_of(
        " ".join([*(template.text for template in PLAIN), *(" ".join(values) for values in VALUES.values())])
    )
