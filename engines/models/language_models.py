"""The travelling card of a language model, whatever library runs it."""

from engines.content import ModelFiles
from schemas.errors import ModelError
from schemas.model import ModelCard, ModelSpec, TensorSpec


def language_spec(card: ModelCard, content: ModelFiles, most: int, precision: str = "") -> ModelSpec:
    """Return `tokens [N, context]`: a text and its answer have at most so many together, and `most` at most.

    Raises ModelError for a card with other arrays.
    """
    shape = card.inputs[0].shape if len(card.inputs) == 1 else None
    context = shape[-1] if shape else None
    if card.outputs or card.heads or not isinstance(context, int) or not 2 <= context <= most:
        what = f"model `{card.name}`: the card of a language model has one input, tokens"
        raise ModelError(what, f'inputs.0.shape is ["N", CONTEXT], a context of 2 to {most} tokens')
    return ModelSpec(
        name=card.name,
        version=card.version,
        description=card.description,
        backend=card.backend,
        precision=precision,
        inputs=(TensorSpec(name="tokens", dtype="int32", shape=("N", context)),),
        outputs=(),
        sha256=card.sha256,
        files=content.files,
    )
