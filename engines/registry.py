"""Finds classes by name: those of rigflow, and those that installed packages add by entry points.

A package that declares an entry point `NAME = "module:Class"` in the group `rigflow.heads`, `rigflow.formats` and so on
adds a class for all of rigflow in the same environment. A class is imported when it is used.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from schemas.errors import ModelError, PipelineError, RigflowError
from schemas.text import did_you_mean


@dataclass(frozen=True, slots=True)
class Group:
    """Classes of one protocol. Errors call one of them `noun`; `classes` are those of rigflow itself."""

    noun: str
    error: type[RigflowError]
    classes: Mapping[str, str]  # name -> "module:Class"


GROUPS: Mapping[str, Group] = {
    "heads": Group(
        "head",
        ModelError,
        {
            "classify": "engines.heads.classify:Classify",
            "depth": "engines.heads.depth:Depth",
            "detect": "engines.heads.detect:Detect",
            "embed": "engines.heads.embed:Embed",
            "image": "engines.heads.image:ImageHead",
            "instances": "engines.heads.instances:Instances",
            "keypoints": "engines.heads.keypoints:Keypoints",
            "matte": "engines.heads.matte:Matte",
            "obb": "engines.heads.obb:OrientedBoxes",
            "raw": "engines.heads.raw:Raw",
            "segment": "engines.heads.segment:Segment",
            "tag": "engines.heads.tag:Tag",
            "text": "engines.heads.text:Text",
            "text_boxes": "engines.heads.text_boxes:TextBoxes",
        },
    ),
    "decoders": Group(  # of detectors
        "decoder",
        ModelError,
        {
            "arrays": "engines.heads.decoders.arrays:Arrays",
            "detr": "engines.heads.decoders.detr:Detr",
            "end2end": "engines.heads.decoders.end2end:End2End",
            "mtcnn": "engines.heads.decoders.mtcnn:Mtcnn",
            "nanodet": "engines.heads.decoders.nanodet:NanoDet",
            "retinaface": "engines.heads.decoders.retinaface:RetinaFace",
            "scrfd": "engines.heads.decoders.scrfd:Scrfd",
            "ssd": "engines.heads.decoders.ssd:Ssd",
            "ultraface": "engines.heads.decoders.ultraface:UltraFace",
            "yolov5": "engines.heads.decoders.yolov5:YoloV5",
            "yolov8": "engines.heads.decoders.yolov8:YoloV8",
            "yolox": "engines.heads.decoders.yolox:YoloX",
            "yunet": "engines.heads.decoders.yunet:YuNet",
        },
    ),
    "operators": Group(
        "operator",
        PipelineError,
        {
            "chat": "engines.operators.generate:Chat",
            "complete": "engines.operators.generate:Complete",
            "crop": "engines.operators.crop:Crop",
            "embed": "engines.operators.embed:Embed",
            "imagine": "engines.operators.imagine:Imagine",
            "infer": "engines.operators.infer:Infer",
            "join": "engines.operators.join:Join",
            "paste": "engines.operators.paste:Paste",
            "resize": "engines.operators.resize:Resize",
            "scale": "engines.operators.scale:Scale",
            "speak": "engines.operators.speak:Speak",
            "speakers": "engines.operators.speakers:Speakers",
            "speech": "engines.operators.speech:Speech",
            "summarise": "engines.operators.summarise:Summarise",
            "transcribe": "engines.operators.transcribe:Transcribe",
            "turn": "engines.operators.turn:Turn",
        },
    ),
    "formats": Group(
        "format",
        PipelineError,
        {
            "annotated": "engines.outputs.annotated:AnnotatedFormat",
            "detections": "engines.outputs.detections:DetectionsFormat",
            "embeddings": "engines.outputs.embeddings:EmbeddingsFormat",
            "image": "engines.outputs.image:ImageFormat",
            "jsonl": "engines.outputs.jsonl:JsonlFormat",
            "npz": "engines.outputs.npz:NpzFormat",
            "shots": "engines.outputs.shots:ShotsFormat",
            "sound": "engines.outputs.sound:SoundFormat",
            "tags": "engines.outputs.tags:TagsFormat",
            "tensors": "engines.outputs.tensors:TensorsFormat",
            "text": "engines.outputs.text_lines:TextFormat",
            "transcript": "engines.outputs.transcript:TranscriptFormat",
            "video": "engines.outputs.video:VideoFormat",
        },
    ),
    "media": Group(
        "medium",
        PipelineError,
        {
            "audio": "engines.media.audio:Audio",
            "image": "engines.media.image:Image",
            "tensor": "engines.media.tensor:TensorMedium",
            "text": "engines.media.text:Text",
            "video": "engines.media.video:Video",
        },
    ),
    "backends": Group(
        "backend",
        ModelError,
        {
            "ctranslate2": "engines.backends.ctranslate2:CTranslate2",
            "ctranslate2-text": "engines.backends.ctranslate2_text:CTranslate2Text",
            "diffusion": "engines.backends.diffusion:Diffusion",
            "ncnn": "engines.backends.ncnn:Ncnn",
            "onnxruntime": "engines.backends.onnxruntime:OnnxRuntime",
            "onnxruntime-genai": "engines.backends.onnxruntime_genai:OnnxRuntimeGenAi",
            "onnxruntime-whisper": "engines.backends.onnxruntime_whisper:OnnxRuntimeWhisper",
            "tensorrt": "engines.backends.tensorrt:TensorRt",
            "tensorrt_rtx": "engines.backends.tensorrt:TensorRtRtx",
            "text-tower": "engines.backends.text_tower:TextTowerBackend",
        },
    ),
    "folders": Group(  # of models without an ONNX file, by the backend that runs them
        "kind of model folder",
        ModelError,
        {
            "ctranslate2": "engines.models.whisper_folder:WhisperFolder",
            "ctranslate2-text": "engines.models.ct2_text_folder:CTranslate2TextFolder",
            "diffusion": "engines.models.diffusion_folder:DiffusionFolder",
            "onnxruntime-genai": "engines.models.genai_folder:GenAiFolder",
            "onnxruntime-whisper": "engines.models.whisper_onnx_folder:WhisperOnnxFolder",
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Plugin:
    """A class that an installed package adds; its version is part of the revision of pipelines that use it."""

    group: str
    name: str
    package: str
    version: str

    @property
    def release(self) -> str:
        """Package and version in one text, as in the `plugins` of a pipeline."""
        return f"{self.package} {self.version}".rstrip()


@cache
def load(group: str, name: str) -> Any:
    """Return the class called `name`. Raises the group's error if there is none, or its package cannot be imported."""
    here = GROUPS[group]
    if name in here.classes:
        module, _, attribute = here.classes[name].partition(":")
        return getattr(import_module(module), attribute)
    entry = _added(group).get(name)
    if entry is None:
        there = f"there are {', '.join(names(group))}"
        raise here.error(f"there is no {here.noun} {name}", did_you_mean(name, names(group), there))
    try:
        return entry.load()
    except Exception as error:  # the import of other packages may raise anything
        what = f"the {here.noun} {name} of the package {_package(entry)[0]} cannot be imported"
        raise here.error(what, f"{type(error).__name__}: {error}") from error


def names(group: str) -> tuple[str, ...]:
    """Return all names of a group, sorted: those of rigflow and of installed packages."""
    return tuple(sorted({*GROUPS[group].classes, *_added(group)}))


def exists(group: str, name: str) -> bool:
    """Return whether there is a class of that name. Installed packages are searched only if rigflow has none."""
    return name in GROUPS[group].classes or name in _added(group)


def plugin(group: str, name: str) -> Plugin | None:
    """Return the plugin that adds `name`; None for a class of rigflow. Raises as `load` does."""
    if name in GROUPS[group].classes:
        return None
    load(group, name)
    return Plugin(group, name, *_package(_added(group)[name]))


def plugins() -> tuple[Plugin, ...]:
    """Return all classes that installed packages add."""
    return tuple(
        Plugin(group, name, *_package(entry)) for group in GROUPS for name, entry in sorted(_added(group).items())
    )


@cache
def _added(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group. Raises the group's error if two classes have the same name."""
    here, found = GROUPS[group], list(entry_points(group=f"rigflow.{group}"))
    counts = Counter([*here.classes, *(entry.name for entry in found)])
    for entry in found:
        if counts[entry.name] > 1:
            what = f"the package {_package(entry)[0]} adds the {here.noun} {entry.name}, a name that exists already"
            raise here.error(what, "uninstall it")
    return {entry.name: entry for entry in found}


def _package(entry: EntryPoint) -> tuple[str, str]:
    """Return name and version of the package that declares an entry point."""
    return (entry.dist.name, entry.dist.version) if entry.dist else (entry.module, "")
