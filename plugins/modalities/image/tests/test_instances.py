"""Cases, truth and floors of goal ``instance``."""

from __future__ import annotations

import pytest
import torch

from mi_image.corruptions import KINDS, MaskedImage
from mi_image.datasets.digits import open_digits
from mi_image.instances import SPREAD, nearest_public, spread
from mi_image.modality import ImageModality
from mi_image.splits import ImageSplit
from micore.contracts import Case, HasFloors, HasTruth
from micore.errors import DataError, UsageError

MODALITY = ImageModality()


@pytest.fixture(scope="module")
def digits():
    return open_digits(None, size=16)


def cases(dataset, choice=None, evidence=None):
    return MODALITY.cases("instance", dataset, (), choice, evidence)


def test_contracts():
    assert isinstance(MODALITY, HasTruth)
    assert isinstance(MODALITY, HasFloors)


def test_by_default_a_few_images_of_every_class(digits):
    found = cases(digits)
    assert len(found) == SPREAD == 20
    truth = MODALITY.truths(found, digits)
    assert sorted(item.label for item in truth.values()) == [label for label in range(5) for _ in range(4)]
    rows = [int(case.id.removeprefix("image-")) for case in found]
    assert rows == sorted(rows)


@pytest.mark.parametrize(
    ("labels", "n", "expected"),
    [
        ([0, 0, 0, 1, 1, 2], 4, [0, 1, 3, 5]),
        ([2, 1, 0], 2, [1, 2]),
        ([0, 0, 1], 9, [0, 1, 2]),
        (None, 3, [0, 1, 2]),
    ],
)
def test_spread(labels, n, expected):
    count = len(labels) if labels else 5
    split = ImageSplit(torch.zeros(count, 1, 4, 4, dtype=torch.uint8), None if labels is None else torch.tensor(labels))
    assert spread(split, n) == expected


def test_an_adversary_knows_no_label_and_holds_the_corrupted_image(digits):
    for kind in KINDS:
        (case,) = cases(digits, "7", kind)
        truth = MODALITY.truths([case], digits)["image-7"]
        assert (case.id, case.goal, case.label) == ("image-7", "instance", None)
        assert isinstance(case.evidence, MaskedImage)
        assert case.evidence.kind == kind
        assert torch.equal(truth.sample, digits.split("private").take([7]))
        visible = case.evidence.mask == 0
        assert torch.equal(case.evidence.image[visible], truth.sample[0][visible])
        assert not torch.equal(case.evidence.image, truth.sample[0])


@pytest.mark.parametrize(("choice", "rows"), [("3-5,4,0", [3, 4, 5, 0]), (" 2 ", [2]), ("all", range(676))])
def test_choice(digits, choice, rows):
    assert [case.id for case in cases(digits, choice)] == [f"image-{row}" for row in rows]


def test_a_case_is_the_same_whatever_else_is_chosen(digits):
    alone, among = cases(digits, "5", "scattered")[0], cases(digits, "0-9", "scattered")[5]
    assert torch.equal(alone.evidence.mask, among.evidence.mask)
    assert torch.equal(alone.evidence.image, among.evidence.image)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("676", "--classes 676 on 676 private samples, counted from 0"),
        ("9-3", "a range goes upwards (3-9)"),
        ("three", "three: no number of a sample"),
        ("", "no number of a sample"),
        ("9" * 5000, "on 676 private samples"),
    ],
)
def test_wrong_choice(digits, choice, words):
    with pytest.raises(UsageError) as caught:
        cases(digits, choice)
    assert words in str(caught.value)


def test_what_cannot_be_made_is_refused(digits):
    with pytest.raises(UsageError, match="needs the private images"):
        cases(None)
    with pytest.raises(UsageError, match=r"no kind of evidence.*--evidence centre\|bottom"):
        cases(digits, evidence="sepia")
    with pytest.raises(UsageError, match="holds no masked image"):
        MODALITY.floors([Case(id="image-0", goal="instance")], digits)


# floors


def test_floors_hold_nothing_of_the_target_and_keep_what_is_seen(digits):
    found = cases(digits)
    floors = MODALITY.floors(found, digits)
    assert list(floors) == ["evidence", "nearest-public"]
    for case, evidence, completed in zip(found, *floors.values(), strict=True):
        assert torch.equal(evidence.samples[0], case.evidence.image)
        visible = case.evidence.mask == 0
        assert torch.equal(completed.samples[0][visible], case.evidence.image[visible])
        assert completed.samples.shape == (1, 1, 16, 16)
        assert not torch.equal(completed.samples, evidence.samples)


@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_public_image_is_found(digits, kind):
    """When the private image itself is public, it is the nearest, and completes the case exactly."""
    private = digits.split("private")
    found = cases(digits, "0-3", kind)
    public = ImageSplit(torch.cat([digits.split("public").images[:1500], private.images[:4]]))
    for (case, completion), row in zip(nearest_public(found, public), range(4), strict=True):
        assert case.id == f"image-{row}"
        assert torch.equal(completion, private.take([row])[0])


def test_without_public_data_there_is_the_evidence_only(digits):
    class Bare:
        def split(self, name):
            raise DataError(name)

    assert list(MODALITY.floors(cases(digits, "0"), Bare())) == ["evidence"]


def test_an_unlabelled_truth_has_no_class(digits):
    class Unlabelled:
        def split(self, name):
            return ImageSplit(digits.split(name).images)

    assert MODALITY.truths(cases(digits, "0"), Unlabelled())["image-0"].label is None
