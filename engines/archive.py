"""npz archives of arrays whose names may come from any source: a model's outputs, or a message."""

import re
from collections.abc import Iterable, Mapping
from typing import IO
from zipfile import ZipFile, ZipInfo

import numpy as np

from engines.part import Array

_SEPARATORS = re.compile(r"[/\\\x00-\x1f\x7f]|^\.+")


def member_names(names: Iterable[str]) -> dict[str, str]:
    """Return a member's name for each array, without `.npy`: its own, with `_` for separators and for dots in front.

    So a program that extracts the archive writes into its own folder. Names that become equal get a number.
    """
    given = list(names)
    taken = {name for name in given if _SEPARATORS.search(name) is None}
    made = {name: name for name in taken}
    for name in given:
        if name not in made:
            safe = free = _SEPARATORS.sub("_", name)
            number = 1
            while free in taken:
                number += 1
                free = f"{safe}-{number}"
            taken.add(free)
            made[name] = free
    return {name: made[name] for name in given}


def write_npz(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """Write arrays of numbers, equal ones as equal bytes; `numpy.savez` takes no array that is called `file`."""
    members = member_names(arrays)
    with ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(ZipInfo(f"{members[name]}.npy"), "w", force_zip64=True) as out:
                np.lib.format.write_array(out, np.asanyarray(array), allow_pickle=False)
