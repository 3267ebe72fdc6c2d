"""Numbers as people read them, with their units."""

from __future__ import annotations


def amount(number: float) -> str:
    """A count with thousands separators, shortened from ten million on."""
    for bound, suffix in ((1e12, "T"), (1e9, "G"), (1e7, "M")):
        if number >= bound:
            return f"{number / (1e6 if suffix == 'M' else bound):,.1f}{suffix}"
    return f"{number:,.0f}"


def size(count: float) -> str:
    """Bytes in the largest binary unit that gives at least 1."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
