"""The models of a fleet as KServe v2 shows them, each as its graph is, run by a variant of the pipeline `infer`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.models.tensors import as_run
from engines.part import Array
from engines.plan import plan_pipeline
from gateway.kserve.tensors import NAMES
from pipelines.broker import Broker
from pipelines.models import load_card
from pipelines.registry import builtin_pipeline, with_pins
from pipelines.values import decoded
from pipelines.variants import find_model, put_as_needed
from schemas.errors import NotFound, UsageError
from schemas.model import ModelSpec, TensorSpec
from schemas.pipeline import PipelineSpec
from schemas.rig import runs_stage
from schemas.status import WorkerStatus

PIPELINE = "infer"
DELAY_MS = 1.0  # that a batch waits for other requests
_FEWEST_DIGITS = 8  # of an identity that stands for a version
_KEPT = 256  # models


@dataclass(frozen=True, slots=True)
class Served:
    """A model that can be asked: its card as it was added, that of its graph, and the pipeline that runs it."""

    card: ModelSpec
    graph: ModelSpec
    spec: PipelineSpec

    @property
    def max_batch(self) -> int:
        """Most rows that a worker gives the model at once."""
        single = any(tensor.shape[:1] == (1,) for tensor in self.graph.inputs)
        return 1 if single else max(stage.max_batch for stage in self.spec.operators)

    def metadata(self) -> dict[str, Any]:
        """Names, datatypes and shapes of inputs and outputs."""
        return {
            "name": self.card.name,
            "versions": [self.card.version],
            "platform": _platform(self.card),
            "inputs": [_metadata(tensor) for tensor in self.graph.inputs],
            "outputs": [_metadata(tensor) for tensor in self.graph.outputs],
        }

    def config(self) -> dict[str, Any]:
        """The fields of Triton's model configuration that are true here."""
        delay_us = int(max(stage.max_delay_ms for stage in self.spec.operators) * 1000)
        return {
            "name": self.card.name,
            "platform": _platform(self.card),
            "backend": self.card.backend or "onnxruntime",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": self.max_batch,
            "input": [_config(tensor) for tensor in self.graph.inputs],
            "output": [_config(tensor) for tensor in self.graph.outputs],
            "dynamic_batching": {"preferred_batch_size": [self.max_batch], "max_queue_delay_microseconds": delay_us},
        }


class Models:
    """Finds the models that are asked for. What it keeps is of one identity each, so that it never grows old."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._kept: dict[str, Served] = {}

    async def find(self, name: str, version: str = "") -> Served:
        """A model by its name, in a version. Raises NotFound, UsageError for one without tensors, ModelError."""
        card = await self._card(name, version)
        if card.identity not in self._kept:
            while len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[card.identity] = _served(card)
        return self._kept[card.identity]

    async def publish(self, served: Served) -> None:
        """Publish the pipeline that runs a model, unless the broker has it. Raises BrokerError, StoreError."""
        await put_as_needed(self._broker, served.spec, [served.graph])

    async def _card(self, name: str, version: str) -> ModelSpec:
        bucket = self._broker.names.pipelines
        key = f"{name}@{version}" if version else name
        identity = await self._broker.get(bucket, f"model.{name}") if _is_model(name) else None
        if identity is None and version and _is_model(key):
            identity, version = await self._broker.get(bucket, f"model.{key}"), ""
        if identity is None:
            return await find_model(self._broker, name)  # which says what models there are
        known = identity.decode(errors="replace")
        served = self._kept.get(known)
        card = served.card if served else await load_card(self._broker, known)
        short = len(version) >= _FEWEST_DIGITS and known.startswith(version)
        if version not in ("", "1", card.version) and not short:
            raise NotFound(f"model {name} has no version {version[:128]}", f"it has {card.version}, {known[:16]}")
        return card


def _served(card: ModelSpec) -> Served:
    if not card.inputs or any(tensor.dtype not in NAMES for tensor in (*card.inputs, *card.outputs)):
        raise UsageError(f"model {card.name} takes no tensors of numbers", "see GET /api/v1/pipelines for others")
    spec = builtin_pipeline(PIPELINE)
    [stage] = spec.operators
    spec = spec.with_fields({f"{stage.name}.model": card.name, f"{stage.name}.max_delay_ms": DELAY_MS})
    graph = as_run(spec, {card.name: card})[card.name]
    plan_pipeline(spec, {card.name: graph})
    return Served(card, graph, with_pins(spec, {card.name: (graph, b"")}))


def labels_of(card: ModelSpec) -> dict[str, Sequence[str]]:
    """Output -> the labels of its last dimension, as the heads of a model's card have them."""
    found: dict[str, Sequence[str]] = {}
    for head in card.heads:
        only = card.outputs[0].name if len(card.outputs) == 1 else None
        labels, output = head.options.get("labels"), head.options.get("output") or only
        if isinstance(labels, list) and isinstance(output, str):
            found[output] = [str(label) for label in labels]
    return found


async def idle_stages(broker: Broker, spec: PipelineSpec) -> list[str]:
    """Return the stages of a pipeline that no worker takes work of. The status of one that is gone expires."""
    known = await broker.items(broker.names.rigs, "worker.*")
    workers = [decoded(WorkerStatus, body, key) for key, body in known.items()]
    stages = [each.stages for each in workers if each is not None and each.state in ("idle", "working")]
    return [each.name for each in spec.stage if not any(runs_stage(taken, each.kind, each.name) for taken in stages)]


def dense(outputs: Mapping[str, Sequence[Array]], ragged: set[str]) -> dict[str, Array]:
    """Return the outputs of a request, of its parts in order. Raises UsageError where rows differ in length."""
    made: dict[str, Array] = {}
    for name, parts in outputs.items():
        if name.removesuffix("_offsets") in ragged - {name}:
            continue
        if name in ragged:
            lengths = {int(length) for offsets in outputs[f"{name}_offsets"] for length in np.diff(offsets)}
            if len(lengths) > 1:
                what = f"output `{name}` has rows of different lengths, {min(lengths)} to {max(lengths)}"
                raise UsageError(what, "send one row in a request")
            length = lengths.pop()
            parts = [part.reshape(-1, length, *part.shape[1:]) if length else part[:0][None] for part in parts]
        if len({part.shape[1:] for part in parts}) > 1:
            shapes = " and ".join(sorted({str(list(part.shape[1:])) for part in parts}))
            raise UsageError(f"output `{name}` has rows of the shapes {shapes}", "send fewer rows in a request")
        made[name] = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return made


def _is_model(name: str) -> bool:
    """Return whether a name may be part of a key at the broker."""
    return len(name) <= 128 and name.isascii() and all(each.isalnum() or each in "._-@" for each in name)


def _platform(card: ModelSpec) -> str:
    return "onnxruntime_onnx" if card.backend is None else card.backend


def _shape(tensor: TensorSpec) -> list[int]:
    return [-1, *(size if isinstance(size, int) else -1 for size in tensor.shape[1:])]


def _metadata(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": NAMES[tensor.dtype], "shape": _shape(tensor)}


def _config(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "data_type": f"TYPE_{NAMES[tensor.dtype]}", "dims": _shape(tensor)[1:]}
