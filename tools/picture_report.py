"""Make docs/report.png: what a person sees of the report that `mi quickstart` writes.

Usage: `mi quickstart`, then
`python tools/picture_report.py runs/quickstart/plmi/report.html docs/report.png`

Needs a Chromium, and Pillow, which the image modality brings.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.report.browser import find, launched

WIDTH = 1380
SECTIONS = ("header", ".headline", "[aria-labelledby=results]", "[aria-labelledby=samples]")
"""What is shown; of the samples only the first cases."""

CASES = 4


def main(report: Path, output: Path) -> None:
    """Open the report, leave only some of its sections, and write a picture of them."""
    program = find()
    if program is None:
        sys.exit("no Chromium was found")
    kept = ", ".join(f"main > {section}" for section in SECTIONS)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        launched(program, Path(profile)) as browser,
        browser.open(report.resolve().as_uri(), width=WIDTH) as page,
    ):
        page.evaluate(f"document.querySelectorAll('main > *:not({kept})').forEach((item) => item.remove())")
        rest = f".gallery figure:nth-of-type(n + {CASES + 1}), .scroll + .facts"
        page.evaluate(f"document.querySelectorAll('{rest}').forEach((item) => item.remove())")
        page.screenshot(output)
    Image.open(output).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        output, optimize=True
    )
    sys.stdout.write(f"{output}: {output.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
