"""Runs the text tower of a model: a text -> its vector, and how many tokens it has."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from engines.content import ModelFiles
from engines.inference.onnxruntime import tensors_of
from engines.inference.place import Place
from engines.inference.resident import value
from engines.models.text import check_text, fed, ids_of, output_of, tokenizer_of, tower_file
from engines.part import Array
from engines.vectors import unit
from schemas.errors import ItemTooLarge, ModelError
from schemas.model import ModelSpec


class TextTower:
    """A session of the graph of texts. Raises ModelError, PluginMissing, DeviceLost."""

    batch_bytes = 1

    def __init__(self, model: ModelFiles, card: ModelSpec, place: Place) -> None:
        if card.text is None:
            raise ModelError(f"model {card.name} has no text tower", "add a folder with its graph of texts")
        check_text(card)
        self.spec, self._text, self._place = card, card.text, place
        self._tokenizer = tokenizer_of((model.folder / tower_file(card, card.text.tokenizer)).read_text())
        graph = (model.folder / tower_file(card, card.text.graph)).read_bytes()
        self._session: Any = place.load(ModelFiles(graph, model.files, model.folder))
        self._inputs, outputs = tensors_of(self._session)
        self._output = output_of(card, outputs)

    def embed(self, text: str, cut: bool) -> tuple[Array, int]:
        """Return the vector of a text, `[D]` float32 of unit length, and the number of its tokens.

        A text is a run of its own: a library may compute several rows at once in another order, with other last bits.
        Raises ItemTooLarge for a text with more tokens than the model takes, unless it may be `cut`; ModelError.
        """
        ids, mask, whole = ids_of(self._tokenizer, self._text, [text])
        if not (cut or whole[0]):
            what = f"a text has more than {self._text.length} tokens, which the model takes"
            raise ItemTooLarge(what, "shorten it")
        feed = {each.name: fed(self.spec, each.name, ids, mask).astype(each.dtype) for each in self._inputs}
        made = self._place.fetch(self._session, {name: value(each) for name, each in feed.items()}, [self._output])
        vectors = np.asarray(made[0])
        if vectors.ndim != 2 or len(vectors) != 1:
            what = f"model {self.spec.name}: its graph of texts gives {self._output} {list(vectors.shape)}"
            raise ModelError(what, "name the output with a vector for each text: text.output")
        return np.asarray(unit(vectors)[0]), int(mask.sum())

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Raise ModelError: texts are embedded by the operator embed."""
        raise ModelError(f"the text tower of model {self.spec.name} takes texts", "run it in a stage `embed`")

    def warm_up(self) -> None:
        """Embed one text."""
        self.embed("a", cut=True)

    def close(self) -> None:
        """Free the model and its memory."""
        if self._session is not None:
            self._place.close(self._session)
            self._session = None
