"""The bundled digits, and what all data sets share: options, splits, fingerprints."""

import pytest
import torch

from mi_image.datasets.digits import open_digits
from mi_image.datasets.pools import Pool
from mi_image.splits import ImageSplit
from micore.contracts import Dataset, Split
from micore.errors import DataError


@pytest.fixture(scope="module")
def digits():
    return open_digits(None)


def rows(split):
    return {image.numpy().tobytes() for image in split.images}


def test_default_counts_and_contract(digits):
    assert isinstance(digits, Dataset)
    assert isinstance(digits.split("public"), Split)
    assert {name: len(digits.split(name)) for name in ("private", "holdout", "public")} == {
        "private": 676,
        "holdout": 225,
        "public": 896,
    }
    assert digits.classes == ("0", "1", "2", "3", "4")
    assert digits.split("public").labels is None
    assert digits.input.shape == (1, 16, 16)
    assert digits.input.mean == digits.input.std == (0.5,)
    assert digits.modality == "image"


def test_holdout_is_a_quarter_of_each_class(digits):
    private = torch.bincount(digits.split("private").labels)
    holdout = torch.bincount(digits.split("holdout").labels)
    assert ((holdout / (private + holdout) - 0.25).abs() < 0.01).all()


def test_images_span_the_canonical_range(digits):
    images = digits.split("private").take(range(100))
    assert images.dtype == torch.float32
    assert images.min() == 0
    assert images.max() == 1


@pytest.mark.parametrize("public", ["5-9", "0-9", "3-6"])
def test_no_image_is_in_two_splits(public):
    dataset = open_digits(None, size=8, public=public)
    private, holdout, others = (rows(dataset.split(name)) for name in ("private", "holdout", "public"))
    assert not private & holdout
    assert not private & others
    assert not holdout & others


def test_shared_classes_are_cut_into_thirds():
    dataset = open_digits(None, size=8, public="0-9")
    counts = torch.bincount(dataset.split("private").labels).tolist()
    assert all(abs(count - total / 3) <= 1 for count, total in zip(counts, (178, 182, 177, 183, 181), strict=True))
    assert len(dataset.split("public")) == 1797 - len(dataset.split("private")) - len(dataset.split("holdout"))


def test_evaluators_learn_the_other_digits_too(digits):
    split, classes = digits.judging()
    assert classes == tuple("0123456789")
    counts = torch.bincount(split.labels).tolist()
    assert counts[7] == round(0.8 * 179)
    assert torch.equal(split.images[:676], digits.split("private").images)


def test_labels_follow_the_chosen_digits():
    dataset = open_digits(None, size=8, private="7,3", public="0")
    reference = open_digits(None, size=8, private="3", public="0")
    assert dataset.classes == ("3", "7")
    threes = dataset.split("private").images[dataset.split("private").labels == 0]
    assert torch.equal(threes, reference.split("private").images)


def test_fingerprint_tells_contents_apart(digits):
    assert open_digits(None).fingerprint == digits.fingerprint
    assert (
        len(
            {
                digits.fingerprint,
                open_digits(None, seed=1).fingerprint,
                open_digits(None, size=8).fingerprint,
            }
        )
        == 3
    )


def test_options_open_it_again(digits):
    dataset = open_digits(None, size="16", private=7)  # as the command line may give them
    assert dataset.options == {"size": 16, "private": "7", "public": "5-9", "seed": 0}
    assert open_digits(None, **dataset.options).fingerprint == dataset.fingerprint
    assert "data_root" not in open_digits(None, data_root=".").options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"privat": "0"}, ("unknown option 'privat'", "did you mean private")),
        ({"size": "big"}, ("size='big'",)),
        ({"size": 4}, ("greater than or equal to 8",)),
        ({"private": "0-10"}, ("digits: private 0-10 on 10 classes",)),
        ({"public": "seven"}, ("'seven' is neither a class",)),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(DataError) as caught:
        open_digits(None, **options)
    assert all(word in str(caught.value) for word in words)


def test_location_is_refused():
    with pytest.raises(DataError, match="takes no location"):
        open_digits("somewhere")


def test_unknown_split_names_those_there_are(digits):
    with pytest.raises(DataError, match=r"no split 'test'.*private, holdout, public"):
        digits.split("test")


def test_take_accepts_lists_ranges_and_tensors():
    split = ImageSplit(torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2))
    assert torch.equal(split.take([2, 0]), split.take(torch.tensor([2, 0])))
    assert split.take(range(0)).shape == (0, 1, 2, 2)
    assert split.take([0])[0, 0, 0, 1] == pytest.approx(1 / 255)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 1, 4, 4), None),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), None),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2)),
    ],
)
def test_split_refuses_other_types(images, labels):
    with pytest.raises(ValueError, match="must be"):
        ImageSplit(images, labels)


def test_a_class_is_cut_in_the_same_way_beside_others():
    pool = Pool(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1), torch.arange(20) % 2, ("a", "b"))
    (alone,) = pool.divide({0: (0.5,)}, "key")
    (together,) = pool.divide({0: (0.5,), 1: (0.5,)}, "key")
    assert torch.equal(alone.images, together.images[together.labels == 0])
