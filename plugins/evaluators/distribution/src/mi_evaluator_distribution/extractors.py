"""Features of images by a network of the user's: the Inception that papers use, or any in TorchScript.

FID, KID and the rest depend on the network that makes the features. That of the literature (Inception-v3 of 2015-12-05,
ported from TensorFlow) has its weights in no package, and they are not downloaded: the user gives the file. Its
architecture, with TensorFlow's way of resizing, is that of torch-fidelity.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from micore.errors import DataError, ModelError
from micore.files import file_digest
from micore.importing import read_weights
from micore.kit.measuring import batches_of
from micore.runtime import Runtime

PUBLISHED = "6726825d"
"""How the SHA-256 of the published weights begins; it is in the name of their file."""
FEATURES = "2048"
"""Torch-fidelity's name of the last pooling layer, which FID is made of."""
BATCH = 32


class Extractor:
    """A network that turns images into features, and what is known of it."""

    def __init__(self, path: Path, runtime: Runtime, *, trusted: bool) -> None:
        """Read a file of ``torch.jit.save``, if it is trusted, or the weights of the published network.

        Raises: ModelError.
        """
        self.digest = file_digest(path)
        self._is_script = is_script(path)
        self._path, self._runtime = path, runtime
        module = _script(path, trusted) if self._is_script else _inception(path)
        self._module: nn.Module = runtime.place(module)

    @property
    def note(self) -> str:
        """Say whose features these are, and whether they are those of published figures."""
        if self._is_script:
            return f"features of a network of yours (SHA-256 {self.digest[:12]}); not comparable with published FID"
        if self.digest.startswith(PUBLISHED):
            return f"features of the published FID network (SHA-256 {self.digest[:12]}), images of 8 bits"
        return (
            f"features of an Inception of yours (SHA-256 {self.digest[:12]}), which is not the published file; "
            "not comparable with published FID"
        )

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return features (N, d) of images (N, 1 or 3, H, W) in [0, 1], on the CPU; NaN for what is no image.

        Raises: ModelError when the network gives something else.
        """
        return torch.cat([self._one(batch) for batch in batches_of(images, BATCH)])

    def _one(self, images: Tensor) -> Tensor:
        images = images.to(self._runtime.device).float().expand(-1, 3, -1, -1)
        spoiled = ~images.isfinite().flatten(1).all(dim=1)
        sound = images.nan_to_num(0).clamp(0, 1)
        found = self._module(sound if self._is_script else (sound * 255).round().to(torch.uint8))
        found = found[0] if isinstance(found, tuple) and len(found) == 1 else found
        if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != len(images):
            raise ModelError(
                f"distribution: {self._path} gives no features (N, d)", hint="extractor: images (N, 3, H, W) to (N, d)"
            )
        found = found.flatten(1).float()
        return found.masked_fill(spoiled[:, None], torch.nan).cpu()


def check_modality(name: str) -> None:
    """Refuse data that are no images.

    Raises: DataError.
    """
    if name != "image":
        raise DataError(
            f"distribution: extractor takes images; the data are of modality {name}",
            hint="leave extractor out: features are then those of the evaluator model",
        )


def is_script(path: Path) -> bool:
    """Tell a file of ``torch.jit.save`` from one with tensors alone, without reading what it holds."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())


def _script(path: Path, trusted: bool) -> nn.Module:
    if not trusted:
        raise ModelError(
            f"distribution: {path} can run code when it is read", hint="trust=true if you know where it is from"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch.jit as a whole
            module: nn.Module = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"distribution: {path} is no file of torch.jit.save") from error
    return module.eval()


def _inception(path: Path) -> nn.Module:
    """Build torch-fidelity's network; it unpickles what it is given, so it is given what was read without that."""
    state, stream = read_weights(path), io.BytesIO()
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ModelError(
            "distribution: weights of Inception need torch-fidelity", hint="pip install torch-fidelity"
        ) from error
    torch.save(state, stream)
    stream.seek(0)
    with torch.random.fork_rng(devices=[]):  # layers draw weights of their own before they get these
        try:
            module: nn.Module = FeatureExtractorInceptionV3("fid", [FEATURES], feature_extractor_weights_path=stream)
        except RuntimeError as error:
            raise ModelError(
                f"distribution: {path} holds no weights of the FID network",
                hint="pt_inception-2015-12-05-6726825d.pth, or a file of torch.jit.save",
            ) from error
    return module
