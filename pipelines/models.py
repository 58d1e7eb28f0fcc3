"""Models at the broker: a card by its identity, a file by its hash, so that models share files."""

import asyncio
import base64
import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from engines.content import Content, ModelFiles, file_sha256, graph_of
from pipelines.blob_upload import put_blob
from pipelines.blobs import BlobInfo, blob_info, get_blob, get_blob_to
from pipelines.broker import Broker
from pipelines.model_folder import ModelFolder
from schemas.errors import ModelError, StoreError
from schemas.model import ModelSpec
from schemas.model_files import bytes_of
from schemas.settings import CACHE_HINT
from schemas.text import size

MOST_CARD_BYTES = 1 << 20
_HASH = re.compile(r"[0-9a-f]{64}")
_PUBLISH = "publish its pipeline again"
_POLL_S = 0.2  # between checks whether another worker of this machine has fetched a file


async def publish_model(broker: Broker, card: ModelSpec, content: Content) -> None:
    """Store a model's files that the broker lacks, then its card. Raises ModelError, StoreError, BrokerError."""
    bucket = broker.names.models
    further = content.files if isinstance(content, ModelFiles) else ()
    if further != card.files:
        raise ModelError(f"model {card.name}: its files are not those that its model card lists", "add it again")
    bodies: dict[str, bytes | Path] = {card.sha256: graph_of(content)}
    if isinstance(content, ModelFiles):
        bodies |= {file.sha256: content.folder / file.sha256 for file in content.files}
    for sha256, body in bodies.items():
        info = await blob_info(broker, bucket, sha256)
        if info is not None and await _is_whole(broker, info, sha256):
            continue
        try:
            found = await asyncio.to_thread(_sha256, body)
        except OSError as error:
            raise ModelError(f"model {card.name}: cannot read {body!s}: {error.strerror}", "add it again") from error
        if found != sha256:
            which = f"its file {body}" if isinstance(body, Path) else "its file"
            what = f"model {card.name}: {which} is not the one its model card describes"
            raise ModelError(what, "add the model again, or make its model card anew")
        await put_blob(broker, bucket, body, sha256)
    if await blob_info(broker, bucket, card.identity) is None:
        await put_blob(broker, bucket, card.model_dump_json().encode(), card.identity)


async def _is_whole(broker: Broker, info: BlobInfo, sha256: str) -> bool:
    """Whether the broker has a file with all its chunks."""
    bucket = broker.names.models
    chunks = f"$O.{bucket}.C.{info.chunks_id}"
    stream = await broker.api_unless_gone(f"STREAM.INFO.OBJ_{bucket}", {"subjects_filter": chunks})
    stored = 0 if stream is None else (stream["state"].get("subjects") or {}).get(chunks, 0)
    return info.digest == _digest(sha256) and bool(stored == info.chunks)


class ModelCache:
    """Models of the broker, fetched to a folder that all workers of this machine share.

    A model that was loaded is in use until `release`: its files stay in the folder.
    """

    def __init__(self, broker: Broker, folder: Path) -> None:
        self._broker = broker
        self._folder = ModelFolder(folder, broker.settings.models_disk_bytes)
        self._held: dict[str, int] = {}

    async def card(self, identity: str) -> ModelSpec:
        """The card of a model. Raises ModelError when the broker has none, StoreError when it is damaged."""
        if not _HASH.fullmatch(identity):  # it is used as a file's name
            raise ModelError("a pipeline has a model whose identity is not 64 hex digits", _PUBLISH)
        with self._keeping():
            kept = await asyncio.to_thread(self._folder.card, identity)
            if kept is not None:
                with contextlib.suppress(ModelError):
                    return _parse_card(kept, identity)
            body = await _card_body(self._broker, identity)
            card = _parse_card(body, identity)
            await asyncio.to_thread(self._folder.put_card, identity, body)
            return card

    async def load(self, identity: str) -> tuple[ModelSpec, Content]:
        """A model, from the folder or the broker; what comes from the broker is kept in the folder.

        Raises ModelError when the broker has no such model or the folder no room for it, StoreError when it is damaged
        or the folder not writable.
        """
        card = await self.card(identity)
        with self._keeping():
            if identity not in self._held:
                body = card.model_dump_json().encode()
                self._held[identity] = await asyncio.to_thread(self._folder.hold, identity, body)
            try:
                for sha256, size in [(card.sha256, None), *((file.sha256, file.size) for file in card.files)]:
                    await self._fetch(card, sha256, size)
                graph = await asyncio.to_thread(self._folder.path(card.sha256).read_bytes)
            except BaseException:
                self.release(identity)
                raise
        return card, ModelFiles(graph, card.files, self._folder.folder) if card.files else graph

    async def nbytes(self, identity: str) -> int:
        """Bytes of a model's files. Raises as `card` does."""
        card = await self.card(identity)
        further = bytes_of(card.files)
        with self._keeping(), contextlib.suppress(FileNotFoundError):
            return further + self._folder.path(card.sha256).stat().st_size
        return further + (await self._info(card, card.sha256)).size

    def release(self, identity: str) -> None:
        """A model is no longer in use here: other models may take its place in the folder."""
        descriptor = self._held.pop(identity, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        """Release all models."""
        for identity in tuple(self._held):
            self.release(identity)

    async def _fetch(self, card: ModelSpec, sha256: str, size: int | None) -> None:
        """Fetch a file into the folder if it is not there; if another worker fetches it, wait for that."""
        while not await asyncio.to_thread(self._folder.has, sha256):
            info = await self._info(card, sha256)
            if info.digest != _digest(sha256) or size not in (None, info.size):
                raise _damaged(card)
            part = await asyncio.to_thread(self._folder.begin, sha256, info.size)
            if part is None:
                await asyncio.sleep(_POLL_S)
                continue
            try:
                await get_blob_to(self._broker, self._broker.names.models, sha256, part)
                await asyncio.to_thread(self._folder.commit, sha256, part)
                return
            except StoreError as error:
                raise _damaged(card) from error
            finally:
                if not part.closed:
                    await asyncio.to_thread(self._folder.discard, sha256, part)

    async def _info(self, card: ModelSpec, sha256: str) -> BlobInfo:
        info = await blob_info(self._broker, self._broker.names.models, sha256)
        if info is None:
            name = next((file.name for file in card.files if file.sha256 == sha256), "")
            what = f"file {name}" if name else "ONNX file"
            raise ModelError(f"the broker has no {what} of model {card.name}", _PUBLISH)
        return info

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"cannot keep models in {self._folder.folder}: {error.strerror}", CACHE_HINT) from error


async def load_card(broker: Broker, identity: str) -> ModelSpec:
    """The card of a model at the broker. Raises ModelError when there is none, StoreError when it is damaged."""
    if not _HASH.fullmatch(identity):
        raise ModelError("a pipeline has a model whose identity is not 64 hex digits", _PUBLISH)
    return _parse_card(await _card_body(broker, identity), identity)


async def _card_body(broker: Broker, identity: str) -> bytes:
    bucket = broker.names.models
    info = await blob_info(broker, bucket, identity)
    if info is None:
        raise ModelError(f"the broker has no model {identity[:12]}", _PUBLISH)
    if info.size > MOST_CARD_BYTES:
        raise ModelError(f"the model card of model {identity[:12]} has {size(info.size)}", _PUBLISH)
    return bytes(await get_blob(broker, bucket, identity))


def _damaged(card: ModelSpec) -> StoreError:
    return StoreError(f"model {card.name} is damaged in the broker's store", _PUBLISH)


def _digest(sha256: str) -> str:
    """A hash as the description of an object has it."""
    return "SHA-256=" + base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode()


def _sha256(body: bytes | Path) -> str:
    return file_sha256(body) if isinstance(body, Path) else hashlib.sha256(body).hexdigest()


def _parse_card(card: bytes, identity: str) -> ModelSpec:
    hint = "it was published by another version of rigflow; publish it again"
    try:
        spec = ModelSpec.model_validate_json(card)
    except ValidationError as error:
        raise ModelError(f"the model card of model {identity[:12]} is not readable", hint) from error
    if not _HASH.fullmatch(spec.sha256):  # as above
        raise ModelError(f"the model card of model {identity[:12]} has no hash of its ONNX file", hint)
    if spec.identity != identity:
        raise ModelError(f"the model card of model {identity[:12]} is that of model {spec.identity[:12]}", hint)
    return spec
