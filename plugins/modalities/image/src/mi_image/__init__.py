"""Images for micore. Importing this package imports no torch; ask its modules for what you need."""

from __future__ import annotations

__version__ = "0.1.0"
