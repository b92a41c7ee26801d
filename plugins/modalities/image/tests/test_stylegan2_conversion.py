"""Converting official networks: pickles of the release's structure, state dicts, and what must be refused."""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from mi_image.stylegan2 import StyleGan2Generator
from mi_image.stylegan2_conversion import convert, infer_arguments
from mi_image.stylegan_prior import restore_stylegan
from micore.errors import ModelError
from micore.runtime import Runtime

CPU = Runtime(device=torch.device("cpu"), seed=5)
Weights = dict[str, Tensor]


# A network of the official layout, rendered from the papers' equations ------------------------------------


def official_weights(size: int = 16, n_classes: int = 0, channels: int = 3) -> Weights:
    """Random weights; channels are 8 at 4 and 8 px, 4 at 16 px, 2 at 32 px (channel_base 64, channel_max 8)."""
    rng = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng)

    weights = {"mapping.w_avg": normal(6)}
    for i, inputs in enumerate((5 + (6 if n_classes else 0), 6, 6)):
        weights |= {f"mapping.fc{i}.weight": 100 * normal(6, inputs), f"mapping.fc{i}.bias": 10 * normal(6)}
    if n_classes:
        weights |= {"mapping.embed.weight": normal(6, n_classes), "mapping.embed.bias": normal(6)}
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    before = 0
    for r in (2**i for i in range(2, size.bit_length())):
        width, block = min(64 // r, 8), f"synthesis.b{r}"
        weights[f"{block}.resample_filter"] = torch.outer(taps, taps)
        if not before:
            weights[f"{block}.const"] = normal(width, 4, 4)
        for name, inputs in ((("conv0", before),) if before else ()) + (("conv1", width),):
            layer = f"{block}.{name}"
            weights |= {f"{layer}.weight": normal(width, inputs, 3, 3), f"{layer}.bias": normal(width)}
            weights |= {f"{layer}.affine.weight": normal(inputs, 6), f"{layer}.affine.bias": 1 + normal(inputs)}
            weights |= {f"{layer}.noise_const": normal(r, r), f"{layer}.noise_strength": normal()}
            weights[f"{layer}.resample_filter"] = torch.outer(taps, taps)
        weights |= {f"{block}.torgb.weight": normal(channels, width, 1, 1), f"{block}.torgb.bias": normal(channels)}
        weights |= {f"{block}.torgb.affine.weight": normal(width, 6), f"{block}.torgb.affine.bias": normal(width)}
        before = width
    return weights


def dense(weights: Mapping[str, Tensor], name: str, values: Tensor, rate: float = 1.0) -> Tensor:
    weight = weights[f"{name}.weight"]
    return values @ weight.t() * rate / weight.shape[1] ** 0.5 + rate * weights[f"{name}.bias"]


def lrelu(values: Tensor) -> Tensor:
    return torch.where(values > 0, values, 0.2 * values) * 2**0.5


def normalised(values: Tensor) -> Tensor:
    return values / (values.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()


def enlarged(maps: Tensor, kernel: Tensor) -> Tensor:
    """Zeros between the values, then the filter times 4, on (C, H, W)."""
    spread = maps.new_zeros(len(maps), 2 * maps.shape[1], 2 * maps.shape[2])
    spread[:, ::2, ::2] = maps
    padded = functional.pad(spread, (2, 1, 2, 1))[:, None]
    return functional.conv2d(padded, 4 * kernel[None, None])[:, 0]


def styled(weights: Mapping[str, Tensor], name: str, maps: Tensor, w: Tensor, up: bool, clamp: float | None) -> Tensor:
    """One modulated convolution of one sample (C, H, W), with scaled weights."""
    styles = dense(weights, f"{name}.affine", w[None])[0]
    scaled = weights[f"{name}.weight"] * styles[None, :, None, None]
    scaled = scaled / (scaled.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
    if up:  # convolution at double size, then the filter
        spread = maps.new_zeros(len(maps), 2 * maps.shape[1], 2 * maps.shape[2])
        spread[:, ::2, ::2] = maps
        wide = functional.conv2d(functional.pad(spread, (2, 1, 2, 1))[None], scaled.flip(2, 3))[0]
        kernel = 4 * weights[f"{name}.resample_filter"][None, None]
        maps = functional.conv2d(wide[:, None], kernel, padding=1)[:, 0]
    else:
        maps = functional.conv2d(maps[None], scaled, padding=1)[0]
    maps = maps + weights[f"{name}.noise_const"] * weights[f"{name}.noise_strength"]
    result = lrelu(maps + weights[f"{name}.bias"][:, None, None])
    return result if clamp is None else result.clamp(-clamp, clamp)


def official_pictures(weights: Weights, latents: Tensor, label: int | None, clamp: float | None) -> Tensor:
    """Return pictures of about [-1, 1], in double precision."""
    weights = {name: value.double() for name, value in weights.items()}
    values = normalised(latents.double())
    if label is not None:
        one_hot = functional.one_hot(torch.full((len(latents),), label), weights["mapping.embed.weight"].shape[1])
        values = torch.cat([values, normalised(dense(weights, "mapping.embed", one_hot.double()))], dim=1)
    for i in range(3):
        values = lrelu(dense(weights, f"mapping.fc{i}", values, 0.01))
    return torch.stack([official_picture(weights, w, clamp) for w in values])


def official_picture(weights: Weights, w: Tensor, clamp: float | None) -> Tensor:
    picture: Tensor | None = None
    maps = weights["synthesis.b4.const"]
    for r in (4, 8, 16, 32):
        block = f"synthesis.b{r}"
        if f"{block}.conv1.weight" not in weights:
            break
        if r > 4:
            maps = styled(weights, f"{block}.conv0", maps, w, True, clamp)
        maps = styled(weights, f"{block}.conv1", maps, w, False, clamp)
        styles = dense(weights, f"{block}.torgb.affine", w[None])[0] / len(maps) ** 0.5
        colours = weights[f"{block}.torgb.weight"][:, :, 0, 0] * styles
        drawn = torch.einsum("oc,chw->ohw", colours, maps) + weights[f"{block}.torgb.bias"][:, None, None]
        drawn = drawn if clamp is None else drawn.clamp(-clamp, clamp)
        picture = drawn if picture is None else enlarged(picture, weights[f"{block}.resample_filter"]) + drawn
    assert picture is not None
    return picture


def assert_same_pictures(state: Mapping[str, Any], weights: Weights, label: int | None, clamp: float | None) -> None:
    prior = restore_stylegan(state, CPU)
    latents = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    labels = None if label is None else torch.full((3,), label)
    expected = official_pictures(weights, latents, label, clamp)
    found = prior.generator.synthesis(prior.map(latents, labels))
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    torch.testing.assert_close(prior.mean_w, weights["mapping.w_avg"])


# The release's persistence layout ---------------------------------------------------------------------------


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Modules that exist while a pickle is written, as in a process of the release; `forget` removes them."""
    persistence, dnnlib, util = ModuleType("torch_utils.persistence"), ModuleType("dnnlib"), ModuleType("dnnlib.util")
    packages = {"torch_utils": ModuleType("torch_utils"), "torch_utils.persistence": persistence, "dnnlib": dnnlib,
                "dnnlib.util": util}  # fmt: skip

    def _reconstruct_persistent_obj(meta: object) -> object:
        raise AssertionError("the release's own code must not run")

    class EasyDict(dict[str, Any]):
        def __getattr__(self, name: str) -> Any:
            try:
                return self[name]
            except KeyError:
                raise AttributeError(name) from None

    for thing, module in ((_reconstruct_persistent_obj, persistence), (EasyDict, util)):
        thing.__module__, thing.__qualname__ = module.__name__, thing.__name__
        setattr(module, thing.__name__, thing)
    for name, module in packages.items():
        monkeypatch.setitem(sys.modules, name, module)

    class Persistent(nn.Module):
        """A layer that is stored as the release stores its own."""

        def __init__(self, class_name: str, **attributes: Any) -> None:
            super().__init__()
            self.__dict__.update(attributes)
            object.__setattr__(self, "_name", class_name)

        def __reduce__(self) -> Any:
            state = {key: value for key, value in self.__dict__.items() if key != "_name"}
            meta = {"type": "class", "version": 6, "module_src": "raise SystemExit('source was run')",
                    "class_name": self._name, "state": state}  # fmt: skip
            return _reconstruct_persistent_obj, (meta,)

    return {"Persistent": Persistent, "EasyDict": EasyDict, "forget": lambda: [sys.modules.pop(x) for x in packages]}


CLASSES = {"affine": "FullyConnectedLayer", "conv0": "SynthesisLayer", "conv1": "SynthesisLayer", "torgb": "ToRGBLayer",
           "mapping": "MappingNetwork", "synthesis": "SynthesisNetwork", "": "Generator"}  # fmt: skip


def persistent(release: Mapping[str, Any], weights: Weights, clamp: float | None, **changes: Any) -> nn.Module:
    """Build the tree of layers of a generator; ``changes`` are attributes of every layer that has them."""

    def layer(name: str) -> nn.Module:
        attributes: dict[str, Any] = {
            "weight_gain": np.sqrt(2),
            "_init_args": (),
            "_init_kwargs": release["EasyDict"](),
        }
        if name.startswith("fc"):
            attributes |= {"activation": "lrelu", "bias_gain": 0.01}
        if name.startswith("b") and name[1:].isdigit():
            attributes |= {"architecture": "skip"}
        if name.startswith("conv"):
            attributes |= {"activation": "lrelu", "conv_clamp": clamp, "act_gain": np.float64(2**0.5)}
        if name == "torgb":
            attributes |= {"conv_clamp": clamp}
        attributes |= {key: value for key, value in changes.items() if key in attributes}
        module: nn.Module = release["Persistent"](CLASSES.get(name, "FullyConnectedLayer"), **attributes)
        return module

    root = layer("")
    for name, value in weights.items():
        *path, last = name.split(".")
        at = root
        for part in path:
            if part not in at._modules:
                at.add_module(part, layer(part))
            at = at.get_submodule(part)
        if last in ("w_avg", "resample_filter", "noise_const"):
            at.register_buffer(last, value.clone())
        else:
            at.register_parameter(last, nn.Parameter(value.clone()))
    return root


def write(path: Path, release: Mapping[str, Any], content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    release["forget"]()
    return path


@pytest.mark.parametrize(("n_classes", "clamp", "protocol"), [(0, 256, 3), (0, None, 4), (4, 2.0, 4)])
def test_an_official_pickle_renders_the_same_pictures(
    tmp_path: Path, release: dict[str, Any], n_classes: int, clamp: float | None, protocol: int
) -> None:
    weights = official_weights(32, n_classes)
    generator = persistent(release, weights, clamp)
    other = persistent(release, {name: value + 1 for name, value in weights.items()}, clamp)
    others = {"training_set_kwargs": release["EasyDict"](class_name="x"), "augment_pipe": None, "scale": np.ones(3)}
    content = {"G": other, "D": other, "G_ema": generator, **others}
    state = convert(write(tmp_path / "net.pkl", release, content, protocol))
    assert state["arguments"] == {
        "latent_dim": 5, "size": 32, "channels": 3, "w_dim": 6, "n_classes": n_classes, "n_mapping_layers": 3,
        "channel_base": 64, "channel_max": 8, "conv_clamp": clamp,
    }  # fmt: skip
    assert_same_pictures(state, weights, 2 if n_classes else None, clamp)


def test_pickles_of_another_architecture_are_refused(tmp_path: Path, release: dict[str, Any]) -> None:
    generator = persistent(release, official_weights(), 256, architecture="resnet")
    with pytest.raises(ModelError, match=r"synthesis.b4 has architecture='resnet'; only 'skip'"):
        convert(write(tmp_path / "net.pkl", release, {"G_ema": generator}))


@pytest.mark.parametrize(("attribute", "value"), [("bias_gain", 1.0), ("activation", "relu")])
def test_pickles_of_other_layers_are_refused(
    tmp_path: Path, release: dict[str, Any], attribute: str, value: Any
) -> None:
    generator = persistent(release, official_weights(), 256, **{attribute: value})
    with pytest.raises(ModelError, match=f"has {attribute}="):
        convert(write(tmp_path / "net.pkl", release, {"G_ema": generator}))


# Hostile and damaged files ----------------------------------------------------------------------------------


class _Calls:
    """Pickles to a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _storage_bytes_that_run(command: str) -> bytes:
    stream = io.BytesIO()
    torch.save(_Calls(os.system, command), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


@pytest.mark.parametrize("where", ["top", "attribute", "storage", "eval", "import"])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, release: dict[str, Any], where: str) -> None:
    marker = tmp_path / "marker"
    command = f"touch {marker}"
    generator = persistent(release, official_weights(), 256)
    content: dict[str, Any] = {"G_ema": generator}
    if where == "top":
        content["D"] = _Calls(os.system, command)
    elif where == "attribute":
        generator.mapping.__dict__["extra"] = _Calls(os.system, command)
    elif where == "eval":
        content["D"] = _Calls(eval, f"__import__('os').system({command!r})")
    elif where == "import":
        content["D"] = _Calls(__import__, "mi_image.toy")
    else:
        load = torch.storage._load_from_bytes
        tensor = _Calls(torch._utils._rebuild_tensor_v2, _Calls(load, _storage_bytes_that_run(command)), 0, (1,), (1,), False, OrderedDict())  # fmt: skip  # noqa: E501
        generator.mapping._buffers["w_avg"] = tensor  # type: ignore[assignment]
    with pytest.raises(ModelError) as caught:
        convert(write(tmp_path / "net.pkl", release, content))
    assert not marker.exists()
    assert "\n" not in caught.value.message
    if where != "storage":
        assert "refused, nothing was run" in caught.value.message


def _texts(*texts: str) -> list[bytes]:
    return [b"\x8c" + bytes([len(text)]) + text.encode() for text in texts]


def _layer_within_itself() -> bytes:
    kind, named, class_name, name, state, modules, key, top = _texts(
        "type", "class", "class_name", "X", "state", "_modules", "again", "G_ema"
    )
    head = b"\x80\x04}\x94ctorch_utils.persistence\n_reconstruct_persistent_obj\n}"  # memo 0: the state
    meta = kind + named + b"s" + class_name + name + b"s" + state + b"h\x00s\x85R\x940"  # memo 1: the layer
    return head + meta + modules + b"}" + key + b"h\x01ss}" + top + b"h\x01s."


# What a pickle may try with the stand-ins themselves, in opcodes: BUILD sets attributes of what lies on the stack.
TRICKS = {
    "a layer within itself": _layer_within_itself(),
    "change a stand-in": b"\x80\x04ctorch.storage\n_load_from_bytes\n}\x8c\x0c__defaults__\x8c\x01xsb.",
    "change a type": b"\x80\x04ccollections\nOrderedDict\nN}\x8c\x08__init__\x8c\x01xs\x86b.",
    "reach for an attribute": b"\x80\x04\x8c\x0bcollections\x8c\x0fOrderedDict.pop\x93.",
    "a loop": b"\x80\x04}\x94\x8c\x05G_emah\x00s.",
    "a persistent id": b"\x80\x04\x8c\x01xQ.",
    "an extension": b"\x80\x04\x82\x01.",
    "TensorFlow": b"\x80\x03cdnnlib.tflib.network\nNetwork\n.",
    "nothing": b"",
    "truncated": b"\x80\x04}",
    "text": b"hello",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_and_damage_are_one_clear_line(tmp_path: Path, trick: str) -> None:
    path = tmp_path / "net.pkl"
    path.write_bytes(TRICKS[trick])
    with pytest.raises(ModelError) as caught:
        convert(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert ("TensorFlow" in caught.value.message) == (trick == "TensorFlow")
    assert OrderedDict(a=1) == {"a": 1}


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path, release: dict[str, Any]) -> None:
    generator = persistent(release, official_weights(), 256)
    load, stream = torch.storage._load_from_bytes, io.BytesIO()
    torch.save(torch.zeros(2).untyped_storage(), stream, _use_new_zipfile_serialization=False)
    far = _Calls(torch._utils._rebuild_tensor_v2, _Calls(load, stream.getvalue()), 0, (10**6,), (1,), False, {})
    generator.mapping._buffers["w_avg"] = far  # type: ignore[assignment]
    with pytest.raises(ModelError, match="tensor of the pickle"):
        convert(write(tmp_path / "net.pkl", release, {"G_ema": generator}))


# State dicts ------------------------------------------------------------------------------------------------


def test_state_dicts_convert_from_both_formats(tmp_path: Path) -> None:
    weights = official_weights(16, channels=1)
    save_file(weights, tmp_path / "net.safetensors")
    torch.save({"state_dict": {f"G_ema.{name}": value for name, value in weights.items()}}, tmp_path / "net.pkl")
    for name in ("net.safetensors", "net.pkl"):
        state = convert(tmp_path / name, conv_clamp=3.0)
        assert state["arguments"]["conv_clamp"] == 3.0
        assert state["arguments"]["channels"] == 1
        assert_same_pictures(state, weights, None, 3.0)


def test_networks_without_noise_get_silent_noise(tmp_path: Path) -> None:
    weights = official_weights()
    silent = {name: value * 0 if name.endswith("noise_strength") else value for name, value in weights.items()}
    save_file({name: value for name, value in weights.items() if "noise" not in name}, tmp_path / "net.safetensors")
    assert_same_pictures(convert(tmp_path / "net.safetensors"), silent, None, 256.0)


@pytest.mark.parametrize(
    "arguments",
    [{"size": 1024}, {"size": 512, "n_mapping_layers": 8}, {"size": 256, "channel_base": 16384},
     {"size": 32, "n_classes": 10, "n_mapping_layers": 2, "channel_base": 16384}],
)  # fmt: skip
def test_arguments_of_released_sizes_are_inferred(arguments: dict[str, Any]) -> None:
    with torch.device("meta"):
        weights = StyleGan2Generator(**arguments).state_dict()
        inferred = infer_arguments(weights, "net")
        again = StyleGan2Generator(**inferred).state_dict()
    assert {name: value.shape for name, value in weights.items()} == {name: v.shape for name, v in again.items()}


def test_other_layouts_are_named() -> None:
    official = official_weights()
    cases = {
        "StyleGAN3": {"synthesis.input.freqs": torch.zeros(2), **official},
        "another implementation": {"style.1.weight": torch.zeros(2)},
        "mapping.w_avg is missing": {"layer.weight": torch.zeros(2)},
        "follow no channel_base": {**official, "synthesis.b8.conv1.weight": torch.zeros(3, 8, 3, 3)},
        "blocks of \\[4, 16\\]": {name: value for name, value in official.items() if ".b8." not in name},
    }
    for message, weights in cases.items():
        with pytest.raises(ModelError, match=message):
            infer_arguments(weights, "net")


def test_missing_files_are_named(tmp_path: Path) -> None:
    for name in ("net.pkl", "net.safetensors"):
        with pytest.raises(ModelError, match=f"{name} does not exist"):
            convert(tmp_path / name)
