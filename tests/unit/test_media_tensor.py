"""tensor: npz files of arrays. Each file is a part, or a few, or one line that says what the model wants."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.archive import DTYPES, read_npz
from engines.media.limits import Limits
from engines.media.medium import DecodePlace, Input, Match, SplitRequest, medium_of
from engines.media.tensor import TensorMedium
from engines.models.tensors import with_tensors
from engines.part import Part
from engines.plan import Plan, plan_pipeline
from pipelines.registry import builtin_pipeline
from schemas.errors import ItemTooLarge, MediaError, ModelError, PipelineError
from schemas.grid import Grid
from schemas.jobs import JobRef, Key
from schemas.media import Item, MediaInfo
from schemas.messages import decode
from schemas.model import HeadSpec, ModelSpec, TensorSpec
from schemas.pipeline import DecodeStage, PipelineSpec
from schemas.segments import Segment
from tests.unit.outputs_parts import assemble, format_of, make_part

X, IDS = (
    TensorSpec(name="x", dtype="float32", shape=("N", 4)),
    TensorSpec(name="ids", dtype="int64", shape=("N", "s.0")),
)
Y = TensorSpec(name="y", dtype="float32", shape=("N", 3))
KEY = Key(job=JobRef(id="j", pipeline="infer", revision="0"), segment=0, final=True)
TENSORS = MediaInfo(kind="tensor", timed=False)


def model(*inputs: TensorSpec, **more: Any) -> ModelSpec:
    return ModelSpec(name="net", inputs=inputs or (X, IDS), outputs=(Y,), sha256="0" * 64, **more)


def infer(**fields: Any) -> PipelineSpec:
    return builtin_pipeline("infer").with_model("net").with_fields(fields)


def planned(card: ModelSpec | None = None, **fields: Any) -> Plan:
    return plan_pipeline(infer(**fields), {"net": card or model()})


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def rows(count: int, first: float = 0) -> dict[str, Any]:
    ids = np.arange(count * 2).reshape(count, 2)
    return {"x": first + np.arange(count * 4, dtype=np.float32).reshape(count, 4), "ids": ids}


def segments(*inputs: Input, limits: Limits | None = None, **fields: Any) -> list[tuple[Segment, list[memoryview]]]:
    """Segments of inputs as they arrive at a worker."""
    medium = TensorMedium(planned(**fields).decode.stage)
    found = []
    for data in medium.split(inputs, SplitRequest(Grid(), 4.0, limits=limits or Limits())):
        segment, buffers = decode(data.segment(KEY).encode(data.buffers))
        assert isinstance(segment, Segment)
        found.append((segment, buffers))
    return found


def parts(*inputs: Input, **fields: Any) -> list[Part]:
    plan = planned(**fields).decode
    return [
        part
        for segment, buffers in segments(*inputs, **fields)
        for part in medium_of(segment.media, plan).decode(segment, buffers, plan, lambda *_: {}, DecodePlace())
    ]


def error_of(data: bytes) -> str:
    [part] = parts(Input(data, "a.npz"))
    [item] = part.meta.items  # one that has no rows
    assert (part.meta.frames, part.meta.lost, len(part.array("x"))) == (0, 1, 0)
    assert "\n" not in item.error
    return item.error


def test_the_pipeline_declares_what_its_model_takes() -> None:
    spec = with_tensors(infer(), {"net": model()})
    assert spec.decode.options["inputs"] == {"x": "float32 [N, 4]", "ids": "int64 [N, free]"}
    one = TensorSpec(name="x", dtype="uint8", shape=(1, 2, 2))
    assert with_tensors(infer(), {"net": model(one)}).decode.options["inputs"] == {"x": "uint8 [N, 2, 2]"}
    assert [*planned().arrays["infer"]] == ["y"]


@pytest.mark.parametrize("shape", [(3, 4), ()])
def test_a_model_without_a_batch_is_refused_before_any_work(shape: tuple[int, ...]) -> None:
    with pytest.raises((ModelError, PipelineError), match=r"batch|float32"):
        planned(model(TensorSpec(name="x", dtype="float32", shape=shape)))


def test_a_raw_model_is_its_graph() -> None:
    card = model(X, heads=(HeadSpec(kind="classify", options={"top": 2}),))
    assert card.of_graph() == model(X)
    assert card.of_graph().identity != card.identity


def test_files_are_parts_and_a_long_one_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "long.npz"
    np.savez_compressed(path, **rows(150))
    given = [Input(npz(**rows(2)), "a.npz"), Input(path, "long.npz"), Input(npz(**rows(1, 7)), "b.npz")]
    found = parts(*given)
    assert [part.meta.items[0].name for part in found] == ["a.npz", *["long.npz"] * 3, "b.npz"]
    assert [part.meta.items[0].more for part in found] == [False, True, True, False, False]
    assert [len(part.meta.pts) for part in found] == [2, 64, 64, 22, 1]
    assert [part.meta.pts[0] for part in found] == [0, 0, 64, 128, 0]
    assert np.array_equal(np.concatenate([part.array("x") for part in found[1:4]]), rows(150)["x"])
    assert len(segments(*given)) == 5
    assert len(segments(*[given[0]] * 70)) == 2
    assert len(segments(given[1], **{"decode.rows": 50})) == 3
    with pytest.raises(ItemTooLarge, match="a job of tensors has more than 149 rows"):
        segments(given[1], limits=Limits(windows=149))


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x": rows(2)["x"]}, "it has no input `ids`, only `x`: give `x` float32 [N, 4], `ids` int64 [N, free]"),
        (rows(2) | {"z": np.zeros(2)}, "there is no input `z`: give `x` float32"),
        (rows(2) | {"x": np.zeros((2, 4))}, "input `x` is float64 [2, 4]: give `x` float32 [N, 4]"),
        (rows(2) | {"x": np.zeros((2, 5), np.float32)}, "input `x` is float32 [2, 5]: give"),
        (rows(2) | {"x": np.zeros(4, np.float32)}, "input `x` is float32 [4]: give"),
        (rows(2) | {"x": np.float32(1)}, "input `x` is float32 []: give"),
        (rows(2) | {"ids": rows(3)["ids"]}, "its inputs have different numbers of rows: `x` 2, `ids` 3: give"),
        (rows(0), "its inputs have no rows: give at least one"),
        ({}, "it has 0 arrays: give 1 to 1024"),
        (rows(2) | {"x": np.array(["a", "b"])}, "array `x` is text: arrays are of bool, "),
        (rows(2) | {"x": np.array([None, 1])}, "array `x` is objects: arrays are of bool, "),
        (rows(2) | {"x": np.zeros((2, 4), np.complex64)}, "array `x` is complex64: arrays are of bool, "),
    ],
)
def test_what_a_model_does_not_take_says_what_it_takes(arrays: dict[str, Any], reason: str) -> None:
    assert reason in error_of(npz(**arrays))


def test_a_bad_file_fails_alone() -> None:
    found = parts(Input(npz(**rows(1)), "a.npz"), Input(b"PK\3\4", "bad.npz"), Input(npz(**rows(1)), "c.npz"))
    assert [bool(part.meta.items[0].error) for part in found] == [False, True, False]


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, data in members:
            made.writestr(name, data)
    return file.getvalue()


def npy(shape: str, data: bytes, descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


GOOD = npz(**rows(3))


@pytest.mark.parametrize(
    "data",
    [
        *(GOOD[:length] for length in (0, 10, 40, 200, len(GOOD) - 1)),
        GOOD.replace(b"\x93NUMPY", b"\x93NUMPX"),
        GOOD.replace(b"'shape'", b"'shap '"),
        b"not a zip",
        archive(("x.npy", npy(f"({2**62}, 4)", b""))),
        archive(("x.npy", npy("(2, -4)", b"x" * 32))),
        archive(("x.npy", npy("(0, 4611686018427387904, 8)", b""))),
        archive(("x.npy", npy("(True,)", b"1234"))),
        archive(("x.npy", npy("(" * 5000, b""))),
        archive(("x.npy", npy("(1,)" + " " * 20000, b"1234"))),
        archive(("x.npy", npy("(1,)", b"1234", "'O'"))),
        archive(("x.npy", npy("(1,)", b"1234", "[('a', '<f4')]"))),
        archive(("x.npy", npy("(1,)", b"1234")), ("y.npy", npy("(1,)", b"1234"))).replace(b"y.npy", b"x.npy"),
        archive(("x.txt", b"words")),
        archive((".npy", npy("(1,)", b"1234"))),
        archive(*((f"{number}.npy", npy("(1,)", b"1234")) for number in range(1025))),
    ],
    ids=lambda data: str(len(data)),
)
def test_any_bytes_are_arrays_or_one_line(data: bytes) -> None:
    assert error_of(data)


@pytest.mark.parametrize(("size", "reason"), [(64, "damaged"), (257 << 20, "its arrays have 269,484,032 bytes")])
def test_a_forged_size_allocates_nothing(size: int, reason: str) -> None:
    bomb = bytearray(archive(("x.npy", bytes(1 << 20)), compression=zipfile.ZIP_DEFLATED))
    entry = bomb.index(b"PK\1\2")
    bomb[entry + 24 : entry + 28] = size.to_bytes(4, "little")
    with pytest.raises((MediaError, ItemTooLarge), match=reason):
        read_npz(bytes(bomb))


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_comes_back(name: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(name)
    given = {"a/b": array, "columns": np.asfortranarray(array), "big": array.astype(array.dtype.newbyteorder(">"))}
    for found in read_npz(npz(**given)).values():
        assert found.dtype == DTYPES[name]
        assert found.flags.c_contiguous
        assert np.array_equal(found, array)


def test_npz_is_known_by_its_content() -> None:
    medium = TensorMedium(DecodeStage(kind="decode"))
    assert medium.sniff(GOOD[:512], Input(GOOD, "x")) is Match.CERTAIN
    assert medium.sniff(b"", Input(b"", "x.NPZ")) is Match.CERTAIN
    assert medium.sniff(archive(("a.txt", b"x")), Input(b"", "x.zip")) is Match.NO


@pytest.mark.parametrize("text", ["float32", "float32 []", "text [N]", "float32 [N,]", "float32 [N] "])
def test_a_declaration_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(PipelineError, match='write "float32'):
        planned(**{"decode.inputs": {"x": text}})


# the format


def written(target: Path, *found: Part) -> tuple[dict[str, dict[str, Any]], list[str]]:
    format_ = format_of("tensors")
    assembler = format_.assemble(target, TENSORS)
    for part in found:
        encoded = format_.encode(part)
        assembler.add(part.meta, encoded.arrays, encoded.facts)
    files = assembler.close()
    return {str(file.relative_to(target.parent)): dict(np.load(file)) for file in files}, assembler.notes


def outputs(part: Part) -> Part:
    return part.with_arrays({"y": part.array("x") * 2})


def test_each_file_has_its_outputs(tmp_path: Path) -> None:
    long, one = Input(npz(**rows(150)), "dir/long.npz"), Input(npz(**rows(1, 7)), "one.npz")
    found, notes = written(tmp_path / "a.infer", *map(outputs, parts(long, one, one)))
    assert [*found] == ["a.infer/long.npz", "a.infer/one.npz", "a.infer/one-2.npz"]
    assert np.array_equal(found["a.infer/long.npz"]["y"], rows(150)["x"] * 2)
    alone, _ = written(tmp_path / "b.infer", *map(outputs, parts(long)))
    assert [*alone] == ["b.infer.npz"]
    assert np.array_equal(alone["b.infer.npz"]["y"], rows(150)["x"] * 2)
    assert (notes, sorted(path.name for path in tmp_path.iterdir())) == ([], ["a.infer", "b.infer.npz"])


def test_images_have_files_of_their_own(tmp_path: Path) -> None:
    items = [Item(name="a.png"), Item(name="a.png"), Item(name="b.png", error="bad"), Item(name="c.png")]
    part = make_part(MediaInfo(kind="image", timed=False), {"y": np.arange(3)}, (0, 0, 0), items=items)
    found, notes = written(tmp_path / "p", part)
    assert {name: arrays["y"].tolist() for name, arrays in found.items()} == {
        "p/a.npz": [0],
        "p/a-2.npz": [1],
        "p/c.npz": [2],
    }
    assert notes == []


def test_a_file_with_missing_rows_is_not_written(tmp_path: Path) -> None:
    pieces = [outputs(part) for part in parts(Input(npz(**rows(150)), "long.npz"), Input(npz(**rows(1)), "one.npz"))]
    for missing in range(3):
        left = [part for number, part in enumerate(pieces) if number != missing]
        found, notes = written(tmp_path / "a", *left)
        assert [*found] == [("a/one.npz")]
        assert notes == ["long.npz: rows of it failed, and its outputs are not written"]
    bad = parts(Input(b"PK", "bad.npz"))
    assert written(tmp_path / "b", *bad) == ({}, [])


def test_the_format_is_for_tensors_alone(tmp_path: Path) -> None:
    found = [outputs(part) for part in parts(Input(npz(**rows(2)), "a.npz"), Input(npz(**rows(1)), "b.npz"))]
    [path] = assemble(format_of("npz"), tmp_path / "n", TENSORS, found)
    assert np.load(path)["names"].tolist() == ["a.npz", "a.npz", "b.npz"]
    with pytest.raises(PipelineError, match='no place for the times of video: take format = "npz"'):
        format_of("tensors").check({}, ["video"])
    assert [part.meta.key.part for part in parts(*[Input(GOOD, "a")] * 2)] == [0, 1]
