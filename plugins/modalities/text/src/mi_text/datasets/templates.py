"""Sentences with places for personal data, by topic.

The last `HELD_BACK` of each topic are those that the adversary does not know with ``templates=new``. A first or last
name never stands beside an e-mail address, which would contain it: every value has to stand once in its text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from string import Formatter

HELD_BACK = 2


@dataclass(frozen=True, slots=True)
class Template:
    """A sentence, and the slots that are to be filled in it, in their order."""

    text: str
    slots: tuple[str, ...]


def read_template(text: str) -> Template:
    """Read a sentence with ``{slots}``."""
    return Template(text, tuple(slot for _, slot, _, _ in Formatter().parse(text) if slot))


def read_templates(texts: Iterable[str]) -> tuple[Template, ...]:
    """Read sentences with ``{slots}``."""
    return tuple(read_template(text) for text in texts)


TOPICS: dict[str, tuple[Template, ...]] = {
    "contact": read_templates((
        "You can reach {name} at {email} or by phone at {phone}.",
        "{name} moved to {city} and now answers calls on {phone}.",
        "Please call {first} in {city} under the new number {phone}.",
        "Mail from {city} should go to {email} from {date} on.",
        "Send the invitation to {name}, who lives in {city}.",
        "The new phone number of {name} is {phone}.",
        "Family {last} of {city} answers the phone at {phone}.",
    )),
    "health": read_templates((
        "{name}, aged {age}, has been treated for {disease} since {date}.",
        "The patient {name} from {city} suffers from {disease}.",
        "On {date} the clinic in {city} found that {first} has {disease}.",
        "{name} was born on {date} and takes pills against {disease}.",
        "Doctor {last} sees patients with {disease} in {city}.",
        "At the age of {age}, {name} learned of having {disease}.",
        "Blood tests of {name} on {date} pointed to {disease}.",
    )),
    "work": read_templates((
        "{name} signed a contract with {company} on {date}.",
        "{company} hired {name} for the post of {job}.",
        "{first}, who is {age}, leads the {city} office of {company}.",
        "Our colleague {last} left {company} to become {job}.",
        "Applications to {company} are handled by {name} at {email}.",
        "Since {date} {name} has worked in {city} as {job}.",
        "The badge of {name} at {company} was issued on {date}.",
    )),
    "money": read_templates((
        "{name} with social security number {ssn} owes the bank {amount}.",
        "A loan of {amount} was granted to {name} on {date}.",
        "{company} paid {amount} to {name} on {date}.",
        "Please transfer {amount} to {name} and confirm it to {email}.",
        "The account of {first} in {city} was short of {amount} on {date}.",
        "{name}, born on {date}, has the social security number {ssn}.",
        "The tax file of {name} in {city} lists {amount} under {ssn}.",
    )),
    "travel": read_templates((
        "{name} flies to {city} on {date} for {amount}.",
        "The hotel in {city} keeps a room for {name} from {date} on.",
        "A ticket to {city} on {date} was sent to {email}.",
        "The {last} family rents a car in {city} on {date}.",
        "The passenger {name} left {phone} before boarding to {city}.",
        "{name}, {age}, was seen on the train to {city}.",
        "Tours of {city} on {date} are led by {name}.",
    )),
}  # fmt: skip
"""Templates by topic; the topics are the classes of ``records``."""


DISEASES = (
    "acne", "anemia", "angina", "appendicitis", "arthritis", "asthma", "bronchitis", "bursitis", "cataracts",
    "celiac disease", "cirrhosis", "colitis", "dementia", "dermatitis", "diabetes", "eczema", "emphysema",
    "endometriosis", "epilepsy", "fibromyalgia", "gallstones", "gastritis", "glaucoma", "gout", "hepatitis",
    "hypertension", "insomnia", "jaundice", "kidney stones", "leukemia", "lupus", "malaria", "measles", "meningitis",
    "migraine", "multiple sclerosis", "osteoporosis", "pneumonia", "psoriasis", "rheumatism", "sciatica", "scoliosis",
    "shingles", "sinusitis", "tonsillitis", "tuberculosis",
)  # fmt: skip

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip

MAIL_DOMAINS = ("example.com", "example.net", "example.org")
"""Reserved for examples (RFC 2606): no such address belongs to anybody."""
