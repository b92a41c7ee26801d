"""A directory of the user's own images, with everything that real directories hold."""

import numpy as np
import pytest
import torch
from PIL import Image

from mi_image.datasets.decoding import decode
from mi_image.datasets.folder import open_folder
from micore.errors import DataError

CLASSES = ("ant", "bee", "cat", "dog")


def make_class(directory, n=5, *, seed=0, suffix=".png"):
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for index in range(n):
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(directory / f"{index}{suffix}")


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(CLASSES):
        make_class(tmp_path / "images" / name, seed=seed)
    return tmp_path / "images"


def open_small(root, **options):
    return open_folder(str(root), **{"size": 8, **options})


def test_public_classes_are_set_apart(root):
    dataset = open_small(root, public_classes="cat,dog")
    assert dataset.classes == ("ant", "bee")
    assert [len(dataset.split(name)) for name in ("private", "holdout", "public")] == [8, 2, 10]
    assert dataset.split("public").labels is None
    assert dataset.input.shape == (3, 8, 8)
    split, names = dataset.judging()
    assert names == CLASSES
    assert torch.bincount(split.labels).tolist() == [4, 4, 4, 4]
    again = open_folder(dataset.name.removeprefix("folder:"), **dataset.options)
    assert again.fingerprint == dataset.fingerprint


def test_private_classes_choose_by_label_or_name(root):
    assert open_small(root, private_classes="1", public_classes="dog").classes == ("bee",)
    assert open_small(root, private_classes="cat,ant", public_classes="3").classes == ("ant", "cat")


def test_public_directory_with_and_without_classes(root, tmp_path):
    make_class(tmp_path / "flat", 3, seed=7)
    flat = open_small(root, public=tmp_path / "flat")
    assert len(flat.split("public")) == 3
    assert flat.judging()[1] == CLASSES
    make_class(tmp_path / "sorted" / "dog", 5, seed=8)
    make_class(tmp_path / "sorted" / "eel", 5, seed=9)
    sorted_public = open_small(root, public=tmp_path / "sorted")
    assert len(sorted_public.split("public")) == 10
    assert sorted_public.judging()[1] == (*CLASSES, "eel")


def test_without_public_data_one_has_to_say_so(root):
    with pytest.raises(DataError, match=r"what does the adversary have.*public_classes"):
        open_small(root)
    dataset = open_small(root, public="none")
    with pytest.raises(DataError, match="no split 'public'"):
        dataset.split("public")


def test_holdout_share_directory_and_none(root, tmp_path):
    assert "holdout" not in open_small(root, public="none", holdout=0)._splits
    assert len(open_small(root, public="none", holdout="0.4").split("holdout")) == 8
    for name in CLASSES:
        make_class(tmp_path / "held" / name, 2, seed=5)
    held = open_small(root, public="none", holdout=str(tmp_path / "held"))
    assert (len(held.split("private")), len(held.split("holdout"))) == (20, 8)
    (tmp_path / "held" / "bee").rename(tmp_path / "held" / "wasp")
    with pytest.raises(DataError, match="no class 'bee'"):
        open_small(root, public="none", holdout=str(tmp_path / "held"))


@pytest.mark.parametrize("options", [{"public": ""}, {"public": "ant"}, {"public": "none", "holdout": ".."}])
def test_directories_must_not_hold_each_other(root, options):
    paths = {name: value if value == "none" else str(root / value) for name, value in options.items()}
    with pytest.raises(DataError, match="images would be in two splits"):
        open_small(root, **paths)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"public": "none", "holdout": 1.0}, "holdout=1.0"),
        ({"public": "none", "public_classes": "ant"}, "contradict"),
        ({"private_classes": "ant", "public_classes": "ant"}, "private and public: ant"),
        ({"public_classes": "all"}, "none is left"),
        ({"public_classes": "dgo"}, "did you mean dog"),
        ({"public": "none", "channels": 2}, "channels=2"),
        ({"public": "/nowhere/at/all"}, "/nowhere/at/all cannot be read"),
        ({"chanels": 1}, "did you mean channels"),
    ],
)
def test_wrong_options_are_named(root, options, words):
    with pytest.raises(DataError) as caught:
        open_small(root, **options)
    assert words in str(caught.value)


def test_location_is_needed_and_must_hold_classes(tmp_path):
    with pytest.raises(DataError, match="folder needs a directory"):
        open_folder(None)
    with pytest.raises(DataError, match="cannot be read"):
        open_folder(str(tmp_path / "missing"))
    with pytest.raises(DataError, match="has no directories"):
        open_folder(str(tmp_path))


def test_empty_class_is_named(root):
    (root / "bat").mkdir()
    (root / "bat" / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match="class 'bat' is empty"):
        open_small(root, public="none")
    make_class(root / "bat", 1)
    with pytest.raises(DataError, match="'bat' has 1 image"):
        open_small(root, public="none")


def test_hidden_and_other_files_are_passed_over(root):
    (root / "ant" / "notes.txt").write_text("no picture")
    (root / "ant" / ".thumb.png").write_bytes(b"broken")
    (root / ".cache").mkdir()
    assert len(open_small(root, public="none", holdout=0).split("private")) == 20


def test_nested_and_upper_case_files_are_read(root):
    make_class(root / "ant" / "more", 2, seed=9, suffix=".JPG")
    assert len(open_small(root, public="none", holdout=0).split("private")) == 22


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("damage", ["truncated", "zeros", "empty"])
def test_damaged_images_are_named(root, suffix, damage):
    file = root / "cat" / f"bad{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    whole = file.read_bytes()
    file.write_bytes({"truncated": whole[: len(whole) // 2], "zeros": bytes(len(whole)), "empty": b""}[damage])
    with pytest.raises(DataError, match=r"bad\.\w+ cannot be read as an image"):
        open_small(root, public="none")


def save(tmp_path, picture, name="picture.png", **options):
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def read(path, size=4, channels=3):
    return decode(path, path.name, size=size, channels=channels)


def test_exif_orientation_is_respected(tmp_path):
    values = np.zeros((8, 8, 3), dtype=np.uint8)
    values[:, :4] = 255  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise: the left half comes to the top
    image = read(save(tmp_path, Image.fromarray(values), "turned.png", exif=exif)).float()
    assert image[:, :2].mean() > 220
    assert image[:, 2:].mean() < 35


def test_transparency_is_laid_on_white(tmp_path):
    clear = Image.new("RGBA", (6, 6), (255, 0, 0, 0))
    assert (read(save(tmp_path, clear)) == 255).all()
    half = Image.new("LA", (6, 6), (0, 128))
    assert ((read(save(tmp_path, half), channels=1).int() - 127).abs() <= 1).all()
    palette = Image.new("P", (6, 6), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert (read(save(tmp_path, palette, "clear.gif", transparency=0)) == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "I;16", "F"])
def test_modes_are_converted(tmp_path, mode):
    grey = Image.new("L", (6, 6), 255)
    picture = Image.fromarray(np.full((6, 6), 65535, dtype=np.uint16)) if mode == "I;16" else grey.convert(mode)
    image = read(save(tmp_path, picture, "picture.tif"))
    assert image.shape == (3, 4, 4)
    assert (image == 255).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    picture = Image.fromarray(np.full((6, 6), 32768, dtype=np.uint16))
    assert (read(save(tmp_path, picture), channels=1) == 128).all()


def test_wide_pictures_are_cropped_in_the_middle(tmp_path):
    values = np.zeros((4, 12), dtype=np.uint8)
    values[:, 4:8] = 200
    assert (read(save(tmp_path, Image.fromarray(values)), channels=1) == 200).all()


def test_resizing_is_antialiased(tmp_path):
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    image = read(save(tmp_path, Image.fromarray(stripes)), size=8, channels=1).int()
    assert ((image - 127).abs() < 20).all()
