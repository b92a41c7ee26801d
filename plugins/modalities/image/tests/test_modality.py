"""Cases, adapter, augmentation, storage, previews, and the plugin's descriptions."""

import base64
import io
import re
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mi_image import plugin
from mi_image.datasets.digits import open_digits
from mi_image.jitter import STRENGTHS
from mi_image.modality import ImageModality
from mi_image.previews import grid, to_bytes
from micore.contracts import Modality
from micore.errors import ModelError, UsageError
from micore.inputs import InputSpec
from micore.kit.choice import read_choice
from micore.runtime import Random

MODALITY = ImageModality()
NAMES = ("ant", "bee", "cat", "dog", "golden-retriever")


def images(n=4, channels=3, size=16, seed=0):
    return Random(seed).uniform((n, channels, size, size))


def test_contract():
    assert isinstance(MODALITY, Modality)


# Selection


def labels(choice, classes=NAMES):
    return [case.label for case in MODALITY.cases("class", None, classes, choice)]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, [0, 1, 2, 3, 4]),
        ("all", [0, 1, 2, 3, 4]),
        ("0-2,4", [0, 1, 2, 4]),
        (" 3 , 1 - 2,1", [3, 1, 2]),
        ("golden-retriever,ant", [4, 0]),
        ("2-2", [2]),
    ],
)
def test_selection(choice, expected):
    assert labels(choice) == expected


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("9", "--classes 9 on 5 classes (there are: 0 (ant), 1 (bee)"),
        ("0-5", "--classes 0-5 on 5 classes"),
        ("3-1", "a range goes upwards (1-3)"),
        ("cta", "did you mean cat?"),
        ("-1", "'-1' is neither"),
        ("", "'' is neither"),
        ("1,,2", "'' is neither"),
        ("0-9999999999999999", "on 5 classes"),
        ("9" * 5000, "on 5 classes"),
    ],
)
def test_wrong_selection_says_what_there_is(choice, words):
    with pytest.raises(UsageError) as caught:
        labels(choice)
    assert words in str(caught.value)


def test_cases_have_stable_ids_and_take_the_classes_of_the_data_set():
    dataset = open_digits(None, size=8, private="5-7", public="0")
    cases = MODALITY.cases("class", dataset, (), "1-2")
    assert [(case.id, case.goal, case.label) for case in cases] == [
        ("class-1", "class", 1),
        ("class-2", "class", 2),
    ]
    with pytest.raises(UsageError, match=r"0 \(5\), 1 \(6\), 2 \(7\)"):
        MODALITY.cases("class", dataset, (), "5")
    with pytest.raises(UsageError, match="does not say what its classes are"):
        MODALITY.cases("class", None, (), None)


def test_other_goals_and_evidence_of_a_class_are_refused():
    with pytest.raises(UsageError, match="corpus"):
        MODALITY.cases("corpus", None, NAMES, None)
    with pytest.raises(UsageError, match="goal 'class' has no evidence"):
        MODALITY.cases("class", None, NAMES, None, "centre")


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)).map(sorted), min_size=1), st.integers(1, 30))
def test_selection_of_ranges_is_their_union_in_order(ranges, n_classes):
    choice = ",".join(f"{first}-{last}" for first, last in ranges)
    classes = [f"class {label}" for label in range(n_classes)]
    if max(last for _, last in ranges) >= n_classes:
        with pytest.raises(UsageError):
            read_choice(choice, classes)
    else:
        expected = [label for first, last in ranges for label in range(first, last + 1)]
        assert read_choice(choice, classes) == list(dict.fromkeys(expected))


@given(st.text(max_size=12), st.integers(1, 20))
def test_any_text_is_a_selection_or_a_usage_error(choice, n_classes):
    classes = [str(label) for label in range(n_classes)]
    try:
        chosen = read_choice(choice, classes)
    except UsageError:
        return
    assert len(chosen) == len(set(chosen)) > 0
    assert set(chosen) <= set(range(n_classes))


# Adapter


def adapter(shape, mean=(), std=()):
    return MODALITY.adapter(InputSpec(shape=shape, mean=mean, std=std))


def test_adapter_leaves_fitting_images_alone():
    batch = images()
    assert adapter((3, 16, 16))(batch) is batch


def test_adapter_normalises_per_channel():
    batch = images()
    fitted = adapter((3, 16, 16), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))(batch)
    expected = (batch.double() - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(
        3, 1, 1
    )
    torch.testing.assert_close(fitted, expected.float())
    torch.testing.assert_close(adapter((3, 16, 16), (0.5,), (0.5,))(batch), 2 * batch - 1)


def test_adapter_converts_channels():
    grey = images(channels=1)
    assert torch.equal(adapter((3, 16, 16))(grey), grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(adapter((1, 16, 16))(grey.repeat(1, 3, 1, 1)), grey)
    green = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    assert adapter((1, 16, 16))(green).mean() == pytest.approx(0.587)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 24, 24), (3, 12, 20)])
def test_adapter_resizes_and_is_differentiable(shape):
    batch = images().requires_grad_()
    fitted = adapter(shape, (0.5,) * shape[0], (0.5,) * shape[0])(batch)
    assert fitted.shape == (4, *shape)
    fitted.square().sum().backward()
    assert (batch.grad != 0).float().mean() > 0.9


def test_adapter_antialiases():
    stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 1, 64, 64)
    assert (adapter((1, 8, 8))(stripes) - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("shape", [(3, 8), (2, 8, 8), (3, 0, 8)])
def test_adapter_refuses_other_models(shape):
    with pytest.raises(ModelError, match="an image model takes"):
        adapter(shape)


def test_adapter_refuses_other_samples_and_odd_means():
    with pytest.raises(ModelError, match="images must be"):
        adapter((3, 8, 8))(torch.zeros(2, 4, 8, 8))
    with pytest.raises(ModelError, match="2 means for 3 channels"):
        adapter((3, 8, 8), (0.5, 0.5), (0.5, 0.5))


# Augmentation


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmented_images_keep_shape_and_range(strength, channels):
    batch = images(8, channels)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    changed = MODALITY.augment(batch, strength, Random(5))
    assert torch.equal(torch.get_rng_state(), before)
    assert changed.shape == batch.shape
    assert changed.dtype == batch.dtype
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(changed, MODALITY.augment(batch, strength, Random(5)))
    assert torch.equal(changed, batch) == (strength == "none")


def test_augmentation_differs_per_image_and_grows():
    smooth = torch.nn.functional.interpolate(images(1, 1, 4), (32, 32), mode="bilinear").expand(32, -1, -1, -1)
    light, strong = (MODALITY.augment(smooth, strength, Random(1)) for strength in ("light", "strong"))
    assert light.var(dim=0).mean() > 0
    assert (light - smooth).square().mean() < (strong - smooth).square().mean()


def test_only_colour_is_mirrored():
    ramp = torch.linspace(0, 1, 16).expand(64, 1, 16, 16)
    rises = lambda batch: batch[..., 12:].mean(dim=(1, 2, 3)) > batch[..., :4].mean(dim=(1, 2, 3))  # noqa: E731
    assert rises(MODALITY.augment(ramp, "light", Random(0))).all()
    share = rises(MODALITY.augment(ramp.expand(-1, 3, -1, -1), "light", Random(0))).float().mean()
    assert 0.25 < share < 0.75


def test_unknown_strength():
    with pytest.raises(UsageError, match=r"none, light, medium, strong"):
        MODALITY.augment(images(), "extreme", Random(0))


def test_empty_batch_is_augmented():
    assert MODALITY.augment(images(0), "strong", Random(0)).shape == (0, 3, 16, 16)


# Storage and previews


def test_storage_is_exact():
    batch = images()
    assert torch.equal(MODALITY.unpack(MODALITY.pack(batch)), batch)
    assert MODALITY.pack(batch[:, :, ::2])["images"].is_contiguous()
    assert torch.equal(MODALITY.join([batch[:1], batch[1:]]), batch)


def test_previews_are_never_stretched(tmp_path):
    dim = torch.full((3, 1, 8, 8), 0.4)
    dim[:, :, 0, 0] = 0.6
    (path,) = MODALITY.export({"class-0": dim, "class-1": dim[:0]}, tmp_path / "samples")
    assert path == tmp_path / "samples" / "class-0.png"
    with Image.open(path) as picture:
        values = set(np.unique(np.asarray(picture)).tolist())
    assert values == {102, 153, 255}  # 0.4, 0.6 and the white gaps


def test_preview_names_are_safe(tmp_path):
    (path,) = MODALITY.export({"../../escape": images(1)}, tmp_path)
    assert path.parent == tmp_path
    assert path.is_file()


@pytest.mark.parametrize(("n", "channels", "size"), [(1, 1, 8), (10, 3, 64), (70, 3, 128)])
def test_grid_holds_every_image(n, channels, size):
    picture = grid(images(n, channels, size))
    factor = max(1, 96 // size)
    columns = (picture.width + 2) // (size * factor + 2)
    rows = (picture.height + 2) // (size * factor + 2)
    assert rows * columns >= n > (rows - 1) * columns


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=20))
def test_any_number_becomes_a_byte_without_stretching(values):
    levels = to_bytes(torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)).flatten().tolist()
    for value, level in zip(values, levels, strict=True):
        clipped = 0.0 if value != value else min(max(value, 0.0), 1.0)
        assert abs(level - 255 * clipped) <= 0.5 + 1e-3


def test_html_holds_its_images():
    batch = images(5, 1, 8)
    fragment = MODALITY.show(batch, 3)
    assert fragment.count("<img") == 3
    assert "pixelated" in fragment
    assert "http" not in fragment
    data = re.search(r"base64,([^\"]+)", fragment)[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert np.array_equal(np.asarray(picture), to_bytes(batch)[0, 0].numpy())
    assert "pixelated" not in MODALITY.show(images(1, 3, 100), 3)
    assert MODALITY.show(batch, 0).count("<img") == 0


# Plugin


def specs():
    return [*plugin.mi_modalities(), *plugin.mi_datasets(), *plugin.mi_models()]


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: f"{spec.kind}-{spec.name}")
def test_every_spec_names_something_that_is_there(spec):
    module, name = spec.target.split(":")
    assert callable(getattr(import_module(module), name))


def test_listing_imports_no_torch():
    code = "import sys, mi_image.plugin as p; p.mi_models(); p.mi_datasets(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


CLASSIFIERS = [spec for spec in plugin.mi_models() if "classifier" in spec.roles]


@pytest.mark.parametrize("spec", CLASSIFIERS, ids=lambda spec: spec.name)
def test_builders_build_and_refuse(spec):
    module, name = spec.target.split(":")
    build = getattr(import_module(module), name)
    spec32 = InputSpec(shape=(1, 32, 32))
    network = build(5, spec32, width=8).eval()
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 5)
    for arguments in (
        {"n_classes": 5, "input_spec": InputSpec(shape=(1, 4, 4))},
        {"n_classes": 0, "input_spec": spec32},
    ):
        with pytest.raises(ModelError):
            build(**arguments)
    with pytest.raises(ModelError, match="depht"):
        build(5, spec32, depht=3)
    with pytest.raises(ModelError, match="square"):
        build(5, InputSpec(shape=(3, 32, 24)))
