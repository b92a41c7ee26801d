"""Text for micore: samples are strings; data sets, tokenizers, small transformers and what text attacks share."""

from __future__ import annotations

__all__: list[str] = []
