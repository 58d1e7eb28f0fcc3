"""Zero-shot labels: a model of pictures and texts becomes one that names what pictures show, by labels in words.

The vectors of the labels are computed once, here, and are constants of the new graph: a picture's vector is scaled to
unit length and multiplied by them, so that workers need neither the text tower nor its tokenizer. The scores are
`scale * cosine + bias` of the model's `text`; head classify makes probabilities of them: by softmax over the labels
where there is no bias (CLIP), by a sigmoid for each one where there is (SigLIP).

The vector of a label is the mean of those of several sentences with it, scaled to unit length again (Radford et al.
2021, "Learning Transferable Visual Models From Natural Language Supervision", section 3.1.4).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from engines.content import Content, graph_of, with_graph
from engines.heads.embed import Embed
from engines.models.surgery import Surgery
from engines.models.text import embed_texts
from engines.part import Array
from engines.registry import load
from engines.vectors import unit
from schemas.errors import ModelError, UsageError
from schemas.model import HeadSpec, ModelCard, ModelSpec, TensorSpec

TEMPLATES = ("a photo of a {}.",)
MOST_LABELS = 100_000
_SCORES = "label_scores"
_TINY = np.array(1e-12, np.float32)


def label_vectors(spec: ModelSpec, content: Content, labels: Sequence[str], templates: Sequence[str]) -> Array:
    """Return a vector `[K, D]` float32 of unit length for each label, the mean over `templates`, which have one `{}`.

    Raises UsageError for templates without `{}` and for no labels, ModelError.
    """
    if not labels or len(labels) > MOST_LABELS:
        raise UsageError(f"there are {len(labels):,} labels", f"give 1 to {MOST_LABELS:,}, a line each")
    for template in templates:
        if template.count("{}") != 1:
            raise UsageError(f"the template {template} has no {{}}", 'write {} for the label, as in "a photo of a {}."')
    sentences = [template.replace("{}", label) for label in labels for template in templates]
    vectors = embed_texts(spec, content, sentences).astype(np.float64)
    means = vectors.reshape(len(labels), len(templates), -1).mean(axis=1)
    return unit(means)


def labelled(
    card: ModelCard, content: Content, name: str, labels: Sequence[str], vectors: Array
) -> tuple[ModelCard, Content]:
    """Return the model that scores pictures by labels: its card, to be kept as `name`, and its content.

    `card` and `content` are those of a kept model, as its owner has it. The vector of a picture stays an output.
    Raises ModelError if the model has no head embed, or the scale of its scores is not known.
    """
    head = next((each for each in card.heads if load("heads", each.kind) is Embed), None)
    if head is None or card.text is None:
        raise ModelError(f"model {card.name} has no {'head embed' if head is None else 'text tower'}", "take another")
    if not card.text.scale:
        what = f"model {card.name}: the scale of its scores is not known"
        hint = "add it again with --set text.scale=... and, for SigLIP, text.bias=..., as its page or config has them"
        raise ModelError(what, hint)
    surgery = Surgery(graph_of(content), card.name)
    outputs = [each.name for each in surgery.graph.output]
    source = head.options.get("output") or outputs[0]
    if source not in outputs:
        raise ModelError(f"model {card.name} has no output {source}", "correct its card")
    _put_scores(surgery, str(source), vectors, card.text.scale, card.text.bias or 0.0)
    activation = "softmax" if card.text.bias is None else "sigmoid"
    options = {"output": _SCORES, "labels": list(labels), "activation": activation}
    scores = TensorSpec(name=_SCORES, dtype="float32", shape=("N", len(labels)))
    wanted = tuple(each for each in card.outputs if each.name != _SCORES)
    changes = {
        "name": name,
        "sha256": "",
        "outputs": (*wanted, scores) if wanted else (),
        "heads": (head.model_copy(update={"options": {**head.options, "output": source}}), _head(options)),
        "files": tuple(each for each in card.files if each.name not in (card.text.graph, card.text.tokenizer)),
        "text": None,
    }
    return card.model_copy(update=changes), with_graph(content, surgery.finish())


def _head(options: Mapping[str, object]) -> HeadSpec:
    return HeadSpec.model_validate({"kind": "classify", **options})


def _put_scores(surgery: Surgery, source: str, vectors: Array, scale: float, bias: float) -> None:
    """Put `scale * cosine + bias` behind the vector of a picture, in float32; the cosine as head embed has it."""
    wide = surgery.behind("Cast", source, to=1)
    squares = surgery.behind("MatMul", surgery.behind("Mul", wide, wide), np.ones((vectors.shape[1], 1), np.float32))
    length = surgery.behind("Sqrt", squares)
    unit = surgery.behind("Div", wide, surgery.behind("Max", length, _TINY))
    scaled = np.ascontiguousarray((vectors.astype(np.float64) * scale).T, np.float32)
    scores = surgery.behind("MatMul", unit, scaled)
    surgery.behind("Add", scores, np.array(bias, np.float32), result=_SCORES)
    surgery.add_output(_SCORES, ("N", len(vectors)))
