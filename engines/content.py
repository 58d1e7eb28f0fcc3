"""The content of a model on a machine: its ONNX file, and the folder of its further files."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from schemas.model_files import FileSpec, bytes_of


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model of several files: its ONNX file, and a folder that has each of `files` under its SHA-256."""

    graph: bytes
    files: tuple[FileSpec, ...]
    folder: Path


Content: TypeAlias = bytes | ModelFiles
"""A model's ONNX file; with further files, `ModelFiles`."""


def graph_of(content: Content) -> bytes:
    """Return the ONNX file of a model."""
    return content.graph if isinstance(content, ModelFiles) else content


def with_graph(content: Content, graph: bytes) -> Content:
    """Return the same model with another ONNX file."""
    return ModelFiles(graph, content.files, content.folder) if isinstance(content, ModelFiles) else graph


def size_of(content: Content) -> int:
    """Return the number of bytes of all files of a model."""
    return len(graph_of(content)) + (bytes_of(content.files) if isinstance(content, ModelFiles) else 0)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file of any size, 64 hex digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
