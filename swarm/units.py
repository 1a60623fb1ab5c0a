"""Sizes and rates as people write them. Sizes are binary (6 GiB), in what we say as in what we are told.

Rates are decimal (17 GB/s): so the data sheets of memory, disks and networks give them.
"""

from __future__ import annotations

import re

KIB, MIB, GIB = 2**10, 2**20, 2**30
_SIZE = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,6})?)\s*(?P<unit>b|[kmgt](?:i?b)?|)", re.ASCII | re.IGNORECASE)
_DECIMAL = {f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)}
_BINARY = {f"{prefix}{end}": 1024**power for power, prefix in enumerate("kmgt", 1) for end in ("", "ib")}
_FACTORS = {"": 1, "b": 1, **_DECIMAL, **_BINARY}


def size_text(n_bytes: float) -> str:
    """An amount of memory or disk with 3 significant digits: 93.8 MiB."""
    return _scaled(n_bytes, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def part_text(part: float, whole: float) -> str:
    """How much of an amount, in the whole's unit: 1.5/5.96 GiB."""
    number, unit = size_text(whole).split()
    return f"{part * float(number) / whole if whole else 0:.3g}/{number} {unit}"


def rate_text(bytes_per_s: float) -> str:
    """The speed of memory, a disk or a link with 3 significant digits: 117 MB/s."""
    return _scaled(bytes_per_s, 1000, ("B", "kB", "MB", "GB", "TB")) + "/s"


def time_text(seconds: float) -> str:
    """A time as people say it: 40 s, 7 min, 2 h 10 min."""
    if seconds < 99.5:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def parse_size(text: str) -> int | None:
    """Bytes of `6GiB`, `800MB`, `7.5g` (which is GiB) or `64000000`; None for anything else."""
    match = _SIZE.fullmatch(text.strip())
    return int(float(match["number"]) * _FACTORS[match["unit"].lower()]) if match else None


def _scaled(amount: float, step: int, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if amount < step - 0.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.95 else f"{amount:.3g} {unit}"
        amount /= step
    return f"{amount:.0f} {units[-1]}" if amount >= 99.95 else f"{amount:.3g} {units[-1]}"
