"""Paths of results by a template, as `results/{folder}/{stem}.{pipeline}.{ext}`.

Its fields are those of an input: `{name}` (`clip.mp4`), `{stem}` (`clip`), `{suffix}` (`mp4`), `{folder}` (the folder
that it is in, from the folder given on), and `{pipeline}`. `{ext}` is the suffix of a result, and stands at the end.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from engines.outputs.names import clean
from schemas.errors import UsageError

FIELDS = ("folder", "name", "stem", "suffix", "pipeline", "ext")
KEEP_TREE = "{folder}/{stem}.{pipeline}.{ext}"
_END = ".{ext}"
_FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class OutTemplate:
    """A template below the folder `root`, which has no fields; `pattern` is without `.{ext}`."""

    root: Path
    pattern: str

    def target(self, name: str, pipeline: str) -> str:
        """Return where the results of an input go, from `root` on and without suffix.

        `name` is the path of the input from the folder that was given; what leads out of that is left out.
        """
        path = PurePosixPath(name)
        inside = [clean(part) for part in path.parent.parts if part not in ("/", ".", "..")]
        base = clean(path.name)
        values = {
            "folder": "/".join(inside),
            "name": base,
            "stem": clean(PurePosixPath(base).stem),
            "suffix": PurePosixPath(base).suffix[1:],
            "pipeline": pipeline,
        }
        made = _FIELD.sub(lambda found: values[found[1]], self.pattern)
        return os.path.normpath(made.lstrip("/"))

    def check(self, names: Iterable[str], pipeline: str) -> None:
        """Raise UsageError for two inputs whose results would have one path."""
        first: dict[str, str] = {}
        for name in names:
            target = self.target(name, pipeline)
            if (other := first.setdefault(target, name)) != name:
                what = f"{other} and {name} would both be written as {self.root / target}{_END}"
                raise UsageError(what, "put {folder}, {name} or {suffix} into the template of --out")


def out_template(out: Path, keep_tree: bool = False) -> OutTemplate | None:
    """Return the template of a folder of results; None for a folder as it is. Raises UsageError for a wrong template.

    `keep_tree`: in the folders of the inputs.
    """
    text = str(out)
    if "{" not in text and "}" not in text:
        return OutTemplate(out, KEEP_TREE.removesuffix(_END)) if keep_tree else None
    if keep_tree:
        raise UsageError("--keep-tree beside a template", "put {folder} into the template, or leave out --keep-tree")
    if wrong := [field for field in _FIELD.findall(text) if field not in FIELDS]:
        there = ", ".join(f"{{{field}}}" for field in FIELDS)
        raise UsageError(f"--out has an unknown field {{{wrong[0]}}}", f"there are {there}")
    if not text.endswith(_END) or "{ext}" in text.removesuffix(_END) or re.search("[{}]", _FIELD.sub("", text)):
        raise UsageError(f"--out {text} is no template", "write it as 'results/{stem}.{pipeline}.{ext}'")
    parts = PurePosixPath(text.removesuffix(_END)).parts
    fixed = next((number for number, part in enumerate(parts) if _FIELD.search(part)), len(parts))
    if fixed == len(parts):
        raise UsageError(f"--out {text} has no field of the input", "put {stem} or {name} into it")
    return OutTemplate(Path(*parts[:fixed]), "/".join(parts[fixed:]))
