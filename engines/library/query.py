"""What a library is searched for: which model's vectors, and the vector of a picture."""

from pathlib import Path

import numpy as np

from engines.content import Content
from engines.inference.trial import HINT
from engines.library.search import counts
from engines.library.spaces import Space, Table
from engines.media.medium import Input, any_recognised
from engines.own_process import in_own_process
from engines.part import Array
from engines.transforms import Picture
from engines.vectors import unit
from schemas.errors import ModelError, UsageError
from schemas.model import ModelSpec
from schemas.text import shell_word

_VECTOR = "embedding"


def fill(library: Path) -> str:
    """What to do about a library that has nothing."""
    return f"fill one by `rigflow run embed FILES --out {shell_word(library)}`"


def spaces_of(table: Table, library: Path, model: str | None) -> dict[str, Space]:
    """The vectors of one model of a library, by its identity: several, if models of one name differ.

    Raises UsageError: there are none, or they are of several models and `model` names none of them.
    """
    found = {identity: space for identity, space in table.spaces.items() if counts(space)[0]}
    if not found:
        raise UsageError(f"{library} has no results of embed", fill(library))
    names = sorted({space.model for space in found.values()})
    if model is None and len(names) > 1:
        what = f"{library} has vectors of {len(names)} models, which do not compare"
        raise UsageError(what, f"choose one by --model: {', '.join(names)}")
    chosen = {identity: space for identity, space in found.items() if space.model == (model or names[0])}
    if not chosen:
        raise UsageError(f"{library} has no vectors of a model {model}", f"it has those of {', '.join(names)}")
    return chosen


def space_of(spaces: dict[str, Space], library: Path, spec: ModelSpec) -> Space:
    """The vectors that this very model made. Raises UsageError: another model of its name made them."""
    if spec.identity in spaces:
        return spaces[spec.identity]
    theirs = ", ".join(identity[:16] for identity in spaces)
    what = f"{library} was embedded by another model {spec.name}: by {theirs}, and yours is {spec.identity[:16]}"
    raise UsageError(what, "add that model again, or run embed again with yours")


def only_space(spaces: dict[str, Space], library: Path) -> Space:
    """The vectors of the one model that there is. Raises UsageError if models of one name differ."""
    if len(spaces) == 1:
        return next(iter(spaces.values()))
    parts = [f"{identity[:16]} ({counts(space)[1]:,} media)" for identity, space in spaces.items()]
    name = next(iter(spaces.values())).model
    what = f"{library} has vectors of {len(spaces)} models that are called {name}, which do not compare"
    raise UsageError(f"{what}: {', '.join(parts)}", "run embed again over the media of all but one")


def embed_picture(spec: ModelSpec, content: Content, path: Path, at_s: float) -> Array:
    """The vector `[D]` float32 of a picture file, or of the frame of a film at `at_s` seconds, of unit length.

    Raises UsageError and MediaError if the file cannot be decoded, ModelError.
    """
    pictures = [tensor for tensor in spec.inputs if tensor.picture]
    if len(spec.inputs) != 1 or len(pictures) != 1 or len(pictures[0].shape) != 4:
        raise ModelError(f"model {spec.name} does not take single pictures", "search by words")
    frame, orientation, _ = any_recognised(Input(path, path.name)).picture(path, at_s)
    made = pictures[0].picture
    assert made is not None
    row = np.ascontiguousarray(Picture(made).convert(frame, orientation)[0])
    return in_own_process(spec.name, "runs", HINT, _embed, spec, content, row)


def _embed(spec: ModelSpec, content: Content, row: Array) -> Array:
    from engines.heads.view import View
    from engines.inference.heads import Heads
    from engines.inference.onnxruntime import OnnxRuntimeSession, load
    from engines.inference.trial import limit_memory

    limit_memory()
    session = OnnxRuntimeSession(content, spec, loaded=load(content, spec.name, once=True))
    outputs = session.run({spec.inputs[0].name: row[None]})
    size = (row.shape[0], row.shape[1])
    found = Heads(spec)(outputs, [View(size, size, size)], 1).get(_VECTOR)
    if not isinstance(found, np.ndarray):
        raise ModelError(f"model {spec.name} has no head embed", "its card needs one, see docs/search.md")
    return unit(found[0])
