"""Loads a model from outside and runs it, to find its properties. Call it by `in_own_process`.

ONNX and its runtime are imported in that process only: the command line does not need them.
"""

import hashlib

from engines.content import Content, graph_of, with_graph
from engines.inference.session import check_model_card
from engines.inference.trial import check_rows, limit_memory
from engines.inference.weights import check_weights
from engines.models.text import check_text
from schemas.errors import ModelError
from schemas.model import ModelCard, ModelSpec


def read_model(content: Content, name: str, card: ModelCard) -> tuple[ModelSpec, bytes | None]:
    """Call `travelling_form` in a process that may use all of this machine's memory.

    The ONNX file is None if that of `content` has that form already.
    """
    limit_memory()
    spec, made = travelling_form(content, name, card)
    return spec, None if made is graph_of(content) else made


def travelling_form(content: Content, name: str, card: ModelCard) -> tuple[ModelSpec, bytes]:
    """Return a model from outside in the form that workers use: its card and its ONNX file.

    Weights in other files are not read for it. `name` is the file's, for errors. The model is run once on one row of
    zeros and once on two. Raises ModelError if it cannot be loaded, disagrees with its card, or does not give one row
    for each row.
    """
    from engines.inference.onnxruntime import OnnxRuntimeSession, load, tensors_of
    from engines.models.front import with_front

    check_weights(content, name)
    check_text(card)
    fronted = with_front(graph_of(content), card, name)
    changed = with_graph(content, fronted.body)
    loaded = load(changed, name, once=True)
    inputs, outputs = tensors_of(loaded)
    if not inputs:
        raise ModelError(f"model `{name}` has no inputs", "export it with one: its answer is always the same")
    spec = ModelSpec(
        name=card.name,
        version=card.version,
        description=card.description,
        backend=card.backend,
        inputs=fronted.marked(inputs),
        outputs=fronted.outputs or outputs,
        heads=card.heads,
        sha256=hashlib.sha256(fronted.body).hexdigest(),
        files=card.files,
        text=card.text,
        speech=card.speech,
        recogniser=card.recogniser,
    )
    check_model_card(spec, inputs, outputs)
    check_rows(OnnxRuntimeSession(changed, spec, loaded=loaded))
    return spec, fronted.body
