"""Answers in rows of a table, over the tiny language model, and a plain loop beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from engines.content import ModelFiles, file_sha256
from engines.generation.answer import Answer
from engines.generation.answer_request import AnswerRequest
from engines.generation.answering import Limits
from engines.generation.row_answering import RowAnswering
from engines.generation.token_writer import TokenWriter
from engines.inference.decoder_graph import IDS, MASK, POSITIONS, decoder_graph
from engines.inference.genai_folder import MAIN
from engines.inference.gpu_table import GpuTable
from engines.inference.key_value_table import HostTable
from engines.inference.resident import HostPlace
from schemas.errors import ModelError
from schemas.model import ModelSpec, TensorSpec
from schemas.model_files import FileSpec
from tests.language import CONTEXT, END, HEADS, WIDTH


class LikeGpu(HostPlace):
    """The CPU, used as a GPU is: shapes of runs that follow from the length of a text alone."""

    on_gpu = True


class LikeGpuThatCopies(LikeGpu):
    """One whose runs do not see what is written into their inputs after these were bound."""

    def copied_when_bound(self, session: Any) -> frozenset[str]:
        return frozenset({IDS, MASK, POSITIONS})

    def update(self, given: Any, array: Any) -> None:
        raise AssertionError("a run would not see it")


def opened(folder: Path) -> tuple[ModelFiles, ModelSpec]:
    """A folder as `model add` keeps it."""
    store = folder.parent / "store"
    store.mkdir(exist_ok=True)
    files = []
    for path in folder.iterdir():
        files.append(FileSpec(name=path.name, sha256=file_sha256(path), size=path.stat().st_size))
        (store / files[-1].sha256).write_bytes(path.read_bytes())
    tokens = TensorSpec(name="tokens", dtype="int32", shape=("N", CONTEXT))
    spec = ModelSpec(name="tiny", inputs=(tokens,), outputs=(), sha256="0" * 64, files=tuple(files))
    return ModelFiles((folder / MAIN).read_bytes(), tuple(files), store), spec


class Plain:
    """A loop that reads the entire text for each token."""

    def __init__(self, folder: Path) -> None:
        self._session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        self._known: dict[tuple[int, ...], int] = {}

    def answer(self, question: Sequence[int], most: int) -> str:
        tokens = list(question)
        while len(tokens) < len(question) + most and (token := self._next(tuple(tokens))) != END:
            tokens.append(token)
        return "".join(map(chr, tokens[len(question) :]))

    def _next(self, tokens: tuple[int, ...]) -> int:
        if tokens not in self._known:
            ids, past = np.array([tokens], np.int64), np.zeros((1, HEADS, 0, WIDTH), np.float32)
            feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(ids.size)[None]}
            feed |= {f"past_key_values.0.{kind}": past for kind in ("key", "value")}
            names = {each.name for each in self._session.get_inputs()}
            [logits] = self._session.run(["logits"], {name: each for name, each in feed.items() if name in names})
            self._known[tokens] = int(logits[0, -1].argmax())
        return self._known[tokens]


def answering(folder: Path, place: type[HostPlace], slots: int) -> RowAnswering:
    model, spec = opened(folder)
    graph = decoder_graph(model, spec)
    assert graph is not None
    table = (GpuTable if place.on_gpu else HostTable)(graph, place("tiny"), slots, CONTEXT)

    def start(asked: Any) -> Any:
        raise ModelError(f"it cannot write {asked.request.grammar}")

    writer = TokenWriter(frozenset([END]))
    return RowAnswering(Limits(CONTEXT, slots, 1, 1), table, writer, start, lambda asked: bool(asked.grammar))


def question(length: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(97, 123, length).tolist()


def begun(rows: RowAnswering, tokens: Sequence[int], most: int, **others: Any) -> Answer:
    answer = Answer(piece=chr)
    rows.add(AnswerRequest(np.array(tokens, np.int32), most, **others), answer)
    return answer
