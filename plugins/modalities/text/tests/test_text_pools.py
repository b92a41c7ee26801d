"""The bundled pools: what they hold, and that the file is the one that PROVENANCE.md speaks of."""

from hashlib import sha256
from importlib.resources import files

from mi_text.datasets.pools import load_pools, words_of
from mi_text.datasets.templates import TOPICS
from mi_text.datasets.writing import SLOTS

DATA = files("mi_text") / "data"


def test_sizes():
    pools = load_pools()
    sizes = [len(values) for values in (pools.first, pools.last, pools.cities, pools.companies, pools.jobs)]
    assert sizes == [670, 990, 3480, 3670, 637]
    for values in (pools.first, pools.last, pools.cities, pools.companies, pools.jobs):
        assert list(values) == sorted({value for value in values if value.strip()})


def test_file_is_small_and_the_one_that_is_described():
    content = (DATA / "pools.json.gz").read_bytes()
    assert len(content) < 200_000
    assert sha256(content).hexdigest() in (DATA / "PROVENANCE.md").read_text()


def test_without_looks_through_all_pools():
    pools = load_pools()
    left = pools.without({"james", "smith"})
    assert "James" in pools.first
    assert "James" not in left.first
    assert any("Smith" in company for company in pools.companies)
    for values in (left.first, left.last, left.cities, left.companies, left.jobs):
        assert not any(words_of(value) & {"james", "smith"} for value in values)
    assert set(pools.last) - set(left.last) == {"James", "Smith"}


def test_templates_use_every_slot():
    assert {slot for forms in TOPICS.values() for form in forms for slot in form.slots} == set(SLOTS)
    assert [len(forms) for forms in TOPICS.values()] == [7] * 5
