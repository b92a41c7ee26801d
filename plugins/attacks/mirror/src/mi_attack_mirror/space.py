"""The space that MIRROR searches: codes whose place in P space is as likely as a sample's."""

from __future__ import annotations

from mi_image.bank import CandidateBank
from micore.kit.projections import Box, p_space_box

__all__ = ["code_box"]


def code_box(bank: CandidateBank, width: float) -> Box:
    """Return the box of codes (w_dim) that lie within ``width`` deviations of the samples' mean in P space."""
    return p_space_box(bank.styles, width=width)
