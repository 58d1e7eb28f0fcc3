"""What a model from outside is like, found out by loading and running it once. Call it by `in_own_process`.

ONNX and its runtime are imported in that process only: the command line does without them.
"""

import hashlib

from engines.inference.session import check_model_card
from engines.inference.trial import check_rows, limit_memory
from engines.inference.weights import check_weights_inside
from schemas.model import ModelCard, ModelSpec


def read_model(body: bytes, name: str, card: ModelCard) -> tuple[ModelSpec, bytes | None]:
    """`travelling_form`, in a process that may use as much memory as this machine has.

    The file is None where `body` is that already.
    """
    limit_memory()
    spec, made = travelling_form(body, name, card)
    return spec, None if made is body else made


def travelling_form(body: bytes, name: str, card: ModelCard) -> tuple[ModelSpec, bytes]:
    """A model from outside in the form that travels: what it is, and its file.

    `name` is the file's, for errors. The model is run once on one row of zeros and once on two. Raises ModelError
    when it cannot be loaded, is not what its card says, or does not answer with a row for each row.
    """
    from engines.inference.onnxruntime import OnnxRuntimeSession, load, tensors_of
    from engines.models.front import with_front

    check_weights_inside(body, name)
    fronted = with_front(body, card, name)
    loaded = load(fronted.body, name)
    inputs, outputs = tensors_of(loaded)
    spec = ModelSpec(
        name=card.name,
        version=card.version,
        description=card.description,
        backend=card.backend,
        inputs=fronted.marked(inputs),
        outputs=fronted.outputs or outputs,
        heads=card.heads,
        sha256=hashlib.sha256(fronted.body).hexdigest(),
    )
    check_model_card(spec, inputs, outputs)
    check_rows(OnnxRuntimeSession(fronted.body, spec, loaded=loaded))
    return spec, fronted.body
