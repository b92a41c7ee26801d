"""Random numbers that are fixed by a secret key and the sample: asked twice, a defense says the same twice.

Noise that is drawn anew for each query is averaged away by asking again. Here a sample is reduced to a few
whole numbers, these and the key are mixed to one number of 64 bits, and a counter is mixed into that one for
as many uniform numbers as are wanted. All of it is integer arithmetic on the sample's device, row by row, so
that the answer depends neither on the other samples nor on the device, and no generator is drawn from.

Pictures (N, C, H, W) are averaged over blocks before they are quantised, and the steps of the quantisation are
shifted by offsets that the key fixes: a sample that is nearly the same gets the same numbers as long as no
block's mean crosses a step. The more blocks, the more often one is crossed, so this is for changes far below a
level. Other tensors are quantised value by value. Texts are told apart by their characters, but for case, width and
spaces, which many models do not see: asking with others must not give other numbers. Other samples (graphs) have
nothing to quantise: their scores stand for them.

The mixing is that of splitmix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA
2014). It spreads bits well and is quick; it is no cryptographic code, and a key can be had back from enough of
its output by someone who sees the uniform numbers themselves.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TypeGuard

import torch
from torch import Tensor
from torch.nn import functional

from micore.errors import ModelError
from micore.records import Samples

__all__ = ["KeyedNoise", "block_side", "draw_key", "gaussian", "laplace", "sample_codes", "sample_hashes", "uniforms"]

LEVELS = 256
"""Steps of the quantisation between 0 and 1: eight bits."""

BLOCK = 8
"""Side of the blocks that large pictures are averaged over, and the fewest blocks along a side."""

FINE = 1 << 20
"""Steps between 0 and 1 before blocks are summed: whole numbers have the same sum in any order."""

TEXT_CODES = 4
"""Numbers of 64 bits that a text is reduced to."""

FURTHEST = float(1 << 20)
"""Values beyond are clipped: with `FINE`, `LEVELS` and the blocks they stay below 64 bits."""

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
FIRST_FACTOR = 0xBF58476D1CE4E5B9 - (1 << 64)
SECOND_FACTOR = 0x94D049BB133111EB - (1 << 64)
UNIFORM_BITS = 23  # with one half added they still fit in a float32


class KeyedNoise:
    """Uniform numbers for each sample, from a secret key.

    fresh: numbers that are new at each query, for comparison: the number of the query in this object's life is mixed
    in, so that a run can still be repeated. levels: steps of the quantisation between 0 and 1; fewer make more samples
    share their numbers.
    """

    def __init__(self, *, fresh: bool = False, levels: int = LEVELS) -> None:
        self.levels = levels
        self._fresh = fresh
        self._key: int | None = None
        self._asked = 0

    def draw_key(self) -> None:
        """Draw the key from torch's global generator of the CPU: for `fit`, which is seeded."""
        self._key = draw_key()

    def state(self) -> dict[str, Tensor]:
        """Return the key, int64 (1,), under ``key``; nothing before it is drawn."""
        return {} if self._key is None else {"key": torch.tensor([self._key])}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the key back.

        Raises: ModelError when there is none.
        """
        key = state.get("key")
        if key is None or key.shape != (1,) or key.dtype != torch.int64:
            raise ModelError("the stored state holds no noise key", hint="train the target again, or `mi defend` it")
        self._key = int(key)

    def uniforms(self, inputs: Samples, scores: Tensor, n: int) -> Tensor:
        """Return float32 (N, n), each above 0 and below 1.

        scores (N, K) stand for samples that are neither tensors nor texts. Raises: ModelError before there is a key.
        """
        if self._key is None:
            raise ModelError("the noise has no key yet", hint="fit the defense, or load its state")
        hashes = sample_hashes(sample_codes(inputs, scores, self._key, self.levels), self._key)
        if self._fresh:
            count = torch.arange(self._asked, self._asked + len(hashes), device=hashes.device)
            self._asked += len(hashes)
            hashes = _mixed(hashes + _mixed(count * GOLDEN))
        return uniforms(hashes, n)


def draw_key() -> int:
    """Draw a key of 63 bits from torch's global generator of the CPU."""
    return int(torch.randint((1 << 63) - 1, (), dtype=torch.int64))


# samples to numbers ---------------------------------------------------------------------------------------


def sample_codes(inputs: Samples, scores: Tensor, key: int, levels: int = LEVELS) -> Tensor:
    """Return what samples are told apart by, int64 (N, codes).

    inputs: canonical samples; scores (N, K) stand for them where they are neither a tensor nor texts.
    """
    if _are_texts(inputs):
        return torch.tensor([_text_code(text) for text in inputs], device=scores.device).reshape(-1, TEXT_CODES)
    values = (inputs if isinstance(inputs, Tensor) else scores).detach()
    values = values[:, None] if values.ndim == 1 else values
    if not values.is_floating_point():
        return values.long().flatten(1)
    fine = values.float().clamp(-FURTHEST, FURTHEST).mul_(FINE).round_().long()
    side = block_side(*fine.shape[2:]) if fine.ndim == 4 else 1
    sums = _block_sums(fine, side).flatten(1)
    step = FINE * side * side
    offsets = (_mixed(_positions(sums) + _later(key)) >> 1).remainder(step)
    return torch.div(sums * (levels - 1) + offsets, step, rounding_mode="floor")


def _are_texts(inputs: Samples) -> TypeGuard[Sequence[str]]:
    return isinstance(inputs, (list, tuple)) and all(isinstance(item, str) for item in inputs)


def _text_code(text: str) -> list[int]:
    """Return the numbers of a text, without what case, width of characters and spaces add to it."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    found = hashlib.blake2b(plain.encode(errors="surrogatepass"), digest_size=8 * TEXT_CODES).digest()
    return [int.from_bytes(found[start : start + 8], signed=True) for start in range(0, len(found), 8)]


def block_side(height: int, width: int) -> int:
    """Return the side of the blocks: 8 for pictures from 64 pixels on, smaller for small ones (16 pixels: 2)."""
    return max(1, min(BLOCK, min(height, width) // BLOCK))


def _block_sums(values: Tensor, side: int) -> Tensor:
    """Return the sums over blocks; what is missing of a block at the edge counts as 0."""
    if side == 1:
        return values
    n, channels, height, width = values.shape
    if height % side or width % side:
        values = functional.pad(values, (0, -width % side, 0, -height % side))
    return values.reshape(n, channels, -(-height // side), side, -(-width // side), side).sum(dim=5).sum(dim=3)


def sample_hashes(codes: Tensor, key: int) -> Tensor:
    """Return one number for each row of codes (N, codes), int64 (N,)."""
    return _mixed(_mixed(codes + _mixed(_positions(codes) + key)).sum(dim=1) + key)


def _positions(codes: Tensor) -> Tensor:
    """Return a number for each column, so that the same codes elsewhere are another sample."""
    return torch.arange(1, codes.shape[1] + 1, device=codes.device) * GOLDEN


def _later(key: int) -> int:
    """Return another key, for the offsets."""
    return key ^ 0x5851F42D4C957F2D


def _mixed(numbers: Tensor) -> Tensor:
    """Spread each bit of int64 numbers over all of them; overflow wraps around."""
    numbers = (numbers ^ _shifted(numbers, 30)) * FIRST_FACTOR
    numbers = (numbers ^ _shifted(numbers, 27)) * SECOND_FACTOR
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; torch fills with the sign."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


# numbers to noise -----------------------------------------------------------------------------------------


def uniforms(hashes: Tensor, n: int) -> Tensor:
    """Return n uniform numbers for each hash (N,), float32 (N, n), each above 0 and below 1."""
    counters = torch.arange(1, n + 1, device=hashes.device) * GOLDEN
    bits = _shifted(_mixed(hashes[:, None] + counters), 64 - UNIFORM_BITS)
    return (bits.float() + 0.5) / (1 << UNIFORM_BITS)


def gaussian(numbers: Tensor) -> Tensor:
    """Turn uniform numbers into ones of N(0, 1), by the inverse of the distribution function; within 5.3."""
    return math.sqrt(2) * torch.erfinv(2 * numbers - 1)


def laplace(numbers: Tensor) -> Tensor:
    """Turn uniform numbers into ones of the Laplace distribution of scale 1, by the inverse; within 16."""
    centred = numbers - 0.5
    return -centred.sign() * torch.log1p(-2 * centred.abs())
