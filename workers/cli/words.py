"""Numbers and tables for people."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def size(nbytes: float) -> str:
    """Bytes: three digits and a decimal unit."""
    if nbytes < 999.5:
        return f"{nbytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        nbytes /= 1000
        if nbytes < 999.5:
            return f"{nbytes:.3g} {unit}"
    return f"{nbytes / 1000:.3g} TB"


def age(seconds: float) -> str:
    """A duration: its two largest units."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def table(*titles: str, left: int = 2) -> "Table":
    """A plain table; the first `left` columns are words, the others numbers."""
    from rich.table import Table

    plain = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, title in enumerate(titles):
        plain.add_column(title, justify="left" if number < left else "right", overflow="fold")
    return plain
