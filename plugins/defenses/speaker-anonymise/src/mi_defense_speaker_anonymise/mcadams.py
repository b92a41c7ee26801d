"""Anonymisation of audio by the McAdams coefficient: the resonances of a voice are moved, the rest stays.

Patino, Tomashenko, Todisco, Nautsch, Evans: "Speaker anonymisation using the McAdams coefficient", Interspeech 2021
(arXiv:2011.01130), baseline B2 of the VoicePrivacy challenges. Each frame is split by linear prediction into an
all-pole filter and a residual; the angle of each complex pole, in radians, is raised to the power alpha, and the
residual is filtered again. All frames of all clips are computed at once, in float64.

Fidelity notes (the challenge's code / here)
- Frames of 20 ms every 10 ms, windows ``sqrt(Hann / K)`` before and after, order 20, Burg's method (that of librosa),
  angles clipped to [0, pi], real poles left: as there.
- A symmetric Hann window, and the first frame is left out / a periodic one, with which overlapped frames add up to
  exactly the input, and half a frame of silence at both ends: with alpha = 1 the clip comes back.
- The output is scaled to a peak of 1 / to the peak of the input, so that loudness tells nothing new.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from mi_audio.adapter import RATE

ORDER = 20
FRAME, SHIFT = RATE // 50, RATE // 100
FRAMES_AT_ONCE = 8192
LEAST_POWER = 1e-12


def anonymised(waveforms: Tensor, alpha: float, order: int = ORDER) -> Tensor:
    """Return waveforms (N, length) whose resonances are moved; same shape, range and peaks."""
    n, length = waveforms.shape
    window = torch.hann_window(FRAME, dtype=torch.float64, device=waveforms.device)
    window = (window * SHIFT / window.sum()).sqrt()
    padded = functional.pad(waveforms.double(), (SHIFT, SHIFT + (-length) % SHIFT))
    frames = padded.unfold(1, FRAME, SHIFT)
    parts = (frames.reshape(-1, FRAME) * window).split(FRAMES_AT_ONCE)
    moved = torch.cat([moved_frames(part, alpha, order) for part in parts]) * window
    added = _overlapped(moved.view(n, -1, FRAME), padded.shape[1])[:, SHIFT : SHIFT + length]
    peaks = [part.abs().amax(dim=1, keepdim=True) for part in (waveforms.double(), added)]
    return (added * peaks[0] / peaks[1].clamp(min=LEAST_POWER)).to(waveforms.dtype)


def moved_frames(frames: Tensor, alpha: float, order: int = ORDER) -> Tensor:
    """Return frames (F, length), float64, of which each complex pole's angle is raised to the power alpha."""
    predictor = burg(frames, order)
    residual = _filtered(frames, predictor)
    poles = torch.linalg.eigvals(_companion(predictor))
    return _resonated(residual, _polynomial(_moved(poles, alpha)))


def burg(frames: Tensor, order: int) -> Tensor:
    """Return the predictors (F, order + 1), beginning with 1, of frames (F, length), by Burg's method (1967)."""
    ahead, behind = frames[:, 1:], frames[:, :-1]
    predictor = torch.ones_like(frames[:, :1])
    for _ in range(order):
        power = ahead.square().sum(dim=1) + behind.square().sum(dim=1)
        reflection = -2 * (ahead * behind).sum(dim=1) / power.clamp(min=LEAST_POWER)
        longer = functional.pad(predictor, (0, 1))
        predictor = longer + reflection[:, None] * longer.flip(1)
        turned = ahead + reflection[:, None] * behind, behind + reflection[:, None] * ahead
        ahead, behind = turned[0][:, 1:], turned[1][:, :-1]
    return predictor


def _companion(predictor: Tensor) -> Tensor:
    """Return the matrices (F, order, order) whose eigenvalues are the poles."""
    order = predictor.shape[1] - 1
    matrix = predictor.new_zeros(len(predictor), order, order)
    matrix[:, 0] = -predictor[:, 1:]
    matrix[:, 1:, :-1] += torch.eye(order - 1, dtype=predictor.dtype, device=predictor.device)
    return matrix


def _moved(poles: Tensor, alpha: float) -> Tensor:
    """Raise the angles of complex poles (F, order) to the power alpha; conjugates stay conjugates."""
    angles = poles.angle()
    raised = angles.sign() * angles.abs().pow(alpha).clamp(max=math.pi)
    return torch.where(poles.imag == 0, poles, torch.polar(poles.abs(), raised))


def _polynomial(roots: Tensor) -> Tensor:
    """Return the coefficients (F, order + 1), beginning with 1, of the polynomials with these roots (F, order)."""
    found = torch.ones_like(roots[:, :1])
    for column in roots.split(1, dim=1):
        found = functional.pad(found, (0, 1)) - functional.pad(found, (1, 0)) * column
    return found.real


def _filtered(frames: Tensor, predictor: Tensor) -> Tensor:
    """Return what the predictors leave of frames (F, length): a filter of finite response, each frame by itself."""
    order = predictor.shape[1] - 1
    past = functional.pad(frames, (order, 0)).unfold(1, order + 1, 1)
    return torch.einsum("flk,fk->fl", past, predictor.flip(1))


def _resonated(residual: Tensor, predictor: Tensor) -> Tensor:
    """Filter residuals (F, length) by ``1 / predictor``: the inverse of `_filtered`."""
    order, length = predictor.shape[1] - 1, residual.shape[1]
    weights = predictor[:, 1:].flip(1)
    found = residual.new_zeros(len(residual), order + length)
    for place in range(length):
        past = found[:, place : place + order]
        found[:, order + place] = residual[:, place] - (past * weights).sum(dim=1)
    return found[:, order:]


def _overlapped(frames: Tensor, length: int) -> Tensor:
    """Add frames (N, frames, FRAME), one every `SHIFT`, to waveforms (N, length)."""
    columns = functional.fold(frames.transpose(1, 2), (1, length), (1, FRAME), stride=(1, SHIFT))
    return columns[:, 0, 0]
