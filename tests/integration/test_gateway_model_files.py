"""Models of several files by HTTP: an archive or a form, nothing outside of its folder, and no path of this machine."""

import io
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("tokenizers")

from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.integration.test_gateway_models import reducing  # noqa: E402
from tests.towers import clip_folder, text_vector  # noqa: E402

MODELS = "/api/v1/models"


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where this process has its temporary files."""
    import tempfile

    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(scope="module")
def http(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with (
        Fleet(ONE_WORKER, tmp_path_factory.mktemp("cache")) as fleet,
        Gateway(fleet.settings.model_copy(update={"models_bytes": 4 << 20})) as gateway,
        httpx.Client(base_url=gateway.url, timeout=60) as client,
    ):
        yield client


def packed(files: dict[str, bytes], mode: int = 0) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return body.getvalue()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_archive_and_a_form_are_the_same_model_and_it_works(http: Any, temporary: Path, tmp_path: Path) -> None:
    files = files_of(clip_folder(tmp_path / "clip"))
    archive = packed(
        {f"clip/{name}": body for name, body in files.items()} | {"__MACOSX/clip/._a": b"", "clip/.x": b""}
    )
    made = http.post(f"{MODELS}?name=packed", content=archive)
    assert made.status_code == 201, made.text
    form = [("file", (name, body)) for name, body in files.items()]
    sent = http.post(f"{MODELS}?name=sent", files=form)
    assert sent.status_code == 201, sent.text
    cards = [http.get(f"{MODELS}/{name}").json()["card"] for name in ("packed", "sent")]
    assert {card.pop("name") for card in cards} == {"packed", "sent"}
    assert cards[0] == cards[1]
    found = http.post("/v1/embeddings", json={"model": "sent", "input": "blue"}).json()["data"][0]["embedding"]
    assert float(np.dot(found, text_vector(["blue</w>"]))) > 0.99995
    one = http.post(f"{MODELS}?name=one&set=heads.0.kind=raw", files={"file": ("net.onnx", reducing("ReduceMax"))})
    assert one.status_code == 201, one.text
    assert list(temporary.glob("rigflow-model-*")) == []


@pytest.mark.parametrize("name", ["../x.onnx", "/etc/x.onnx", "a/../../x.onnx", "a\\x.onnx", "a//b", "a/b/c/d/e", "é"])
def test_names_that_lead_elsewhere_are_refused(http: Any, temporary: Path, name: str) -> None:
    before = sorted(temporary.parent.rglob("x.onnx"))
    for sent in (
        http.post(f"{MODELS}?name=m", content=packed({"m.onnx": b"x", name: b"x"})),
        http.post(f"{MODELS}?name=m", files=[("file", ("m.onnx", b"x")), ("file", (name, b"x"))]),
    ):
        assert sent.status_code == 422, sent.text
        assert "a file of the model is called" in sent.json()["detail"]
    assert sorted(temporary.parent.rglob("x.onnx")) == before
    assert list(temporary.glob("rigflow-model-*")) == []


def test_what_is_no_model_is_one_line_without_a_path_of_this_machine(http: Any, temporary: Path) -> None:
    external = onnx.load_from_string(reducing("ReduceMax"))
    weights = external.graph.initializer.add(name="w", data_type=1, dims=[4], data_location=1)
    weights.external_data.add(key="location", value="../../../../../etc/passwd")
    cases = {
        "no model": (b"no model", 422),
        "no archive": (b"PK\x03\x04" + b"x" * 100, 422),
        "a bomb": (packed({"m.onnx": bytes(5 << 20)}), 413),
        "too large": (bytes(5 << 20), 413),
        "a link": (packed({"m.onnx": b"/etc/passwd"}, stat.S_IFLNK | 0o777), 422),
        "twice": (packed({"a.onnx": b"x", "A.onnx": b"x"}), 422),
        "nothing": (packed({}), 422),
        "weights elsewhere": (external.SerializeToString(), 422),
        "several": (packed({"a.onnx": b"x", "b.onnx": b"x"}), 422),
    }
    for what, (body, status) in cases.items():
        found = http.post(f"{MODELS}?name=m", content=body)
        assert found.status_code == status, (what, found.text)
        assert str(temporary) not in found.text, (what, found.text)
        assert "rigflow-model-" not in found.text, (what, found.text)
        assert "root:" not in found.text
    assert http.get(f"{MODELS}/m").status_code == 404
    assert http.post(f"{MODELS}?name=m", data={"name": "x"}, files={"file": b"x"}).status_code == 400
    assert list(temporary.glob("rigflow-model-*")) == []
