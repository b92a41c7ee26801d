"""Draw the pools of names, places and jobs that the bundled text data sets are made of.

``python tools/make_text_pools.py`` writes ``data/pools.json.gz`` and ``data/PROVENANCE.md`` of the package mi-text.
It needs ``faker``, of the version in PROVENANCE.md for the same file again; the package itself does not.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import faker

DATA = Path(__file__).resolve().parent.parent / "plugins/modalities/text/src/mi_text/data"
SEED = 20240501
LOCALE = "en_US"
SIZES = {"first": 670, "last": 990, "cities": 3480, "companies": 3670, "jobs": 637}
DRAWS = 200_000
"""After so many draws for one pool, the locale has not so many values."""


def draw_pools() -> dict[str, list[str]]:
    """Return the pools, each sorted; equal versions of faker give equal pools."""
    source = faker.Faker(LOCALE)
    source.seed_instance(SEED)
    makers: dict[str, Callable[[], str]] = {
        "first": source.first_name,
        "last": source.last_name,
        "cities": source.city,
        "companies": source.company,
        "jobs": source.job,
    }
    return {name: _distinct(name, make) for name, make in makers.items()}


def _distinct(name: str, make: Callable[[], str]) -> list[str]:
    found: set[str] = set()
    for _ in range(DRAWS):
        if len(found) == SIZES[name]:
            return sorted(found)
        found.add(make())
    raise SystemExit(f"{name}: {DRAWS} draws gave {len(found)} values, not {SIZES[name]}")


def pack(pools: Mapping[str, Sequence[str]]) -> bytes:
    """Return the pools as compressed JSON, without a time stamp."""
    return gzip.compress(json.dumps(pools, separators=(",", ":")).encode(), mtime=0)


def provenance(pools: Mapping[str, Sequence[str]], content: bytes) -> str:
    """Return what PROVENANCE.md says."""
    counts = ", ".join(f"{len(values):,} {name}" for name, values in pools.items())
    return f"""# pools.json.gz

Pools of words from which the data sets `records` and `customers` are made, drawn at random and then sorted: {counts}.

- source: the Python package faker {faker.VERSION}, locale {LOCALE}, seed {SEED}
- licence: MIT, Copyright (c) 2012 Daniele Faraglia
- made by: `python tools/make_text_pools.py`
- nobody in these data sets is a real person: first and last names are put together at random, cities and companies
  are made up. A name that somebody bears is one by chance. Telephone numbers have the area code 555, social security
  numbers begin with 9, neither of which is given to anybody; e-mail addresses are of example.com, .net and .org.

| file | bytes | sha256 |
|---|---|---|
| pools.json.gz | {len(content)} | {sha256(content).hexdigest()} |
"""


def main() -> None:
    """Write both files."""
    pools = draw_pools()
    content = pack(pools)
    DATA.mkdir(parents=True, exist_ok=True)
    (DATA / "pools.json.gz").write_bytes(content)
    (DATA / "PROVENANCE.md").write_text(provenance(pools, content), encoding="utf-8")


if __name__ == "__main__":
    main()
