"""What cards say of inputs, through fleets: planes of floats, constants, states, no batch, loops."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.cases import Array, Fleets, arrays, check, film, fleets, frames_of, plainly, put, stills, to, written
from tests.onnx_graphs import FLOAT, INT64, UINT8, model_of, value

MEAN, STD = np.float32([103.53, 116.28, 123.675]), np.float32([57.375, 57.12, 58.395])
BGR = f"colours = 'bgr'\nmean = {MEAN.tolist()}\nstd = {STD.tolist()}\n"
PIXELS = value("pixels", UINT8, ["N", 32, 32, 3])
MEANS = [
    helper.make_node("Cast", ["pixels"], ["f"], to=FLOAT),
    helper.make_node("ReduceMean", ["f"], ["s"], axes=[1, 2, 3], keepdims=0),
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    with fleets(tmp_path_factory.mktemp("cache")) as started:
        yield started


def constant(name: str, given: object, dtype: str) -> TensorProto:
    return numpy_helper.from_array(np.asarray(given, dtype), name)


def halved(pixels: Array) -> Array:
    """A picture of 64 x 64 at 32 x 32: means of blocks of 2 x 2."""
    return pixels.reshape(32, 2, 32, 2, 3).mean((1, 3))


async def answered(fleet: Fleets, folder: Path, graph: bytes, card: str) -> list[dict[str, Array]]:
    """The arrays of a film of 32 x 32 and of an album with pictures of 32 x 32 and 64 x 64, both in `folder`."""
    put(folder, graph, card)
    inputs = [film(folder, size=(32, 32)), *stills(folder, [(32, 32), (64, 64)])]
    return [arrays(outcome) for outcome in await fleet.answers(written(folder, to("npz")), inputs, folder / "out")]


@pytest.mark.parametrize(
    ("dtype", "kind", "near"), [(FLOAT, np.float32, 1e-4), (TensorProto.FLOAT16, np.float16, 0.01)]
)
async def test_planes_of_floats(fleet: Fleets, tmp_path: Path, dtype: int, kind: type, near: float) -> None:
    node = helper.make_node("ReduceMean", ["images"], ["score"], axes=[2, 3], keepdims=0)
    graph = model_of([node], [value("images", dtype, ["N", 3, 32, 32])], [value("score", dtype, ["N", 3])])
    of_film, of_album = await answered(fleet, tmp_path, graph, f'[[inputs]]\nname = "images"\n{BGR}')
    for number, frame in enumerate(frames_of(tmp_path / "film.mp4")):
        planes = ((frame[..., ::-1] - MEAN) / STD).transpose(2, 0, 1)[None].astype(kind)
        np.testing.assert_allclose(of_film["score"][number], plainly(graph, images=planes)["score"][0], atol=near)
    large = halved(frames_of(tmp_path / "still1.png")[0])
    for found, frame in zip(of_album["score"], [frames_of(tmp_path / "still0.png")[0], large], strict=True):
        np.testing.assert_allclose(found, ((frame[..., ::-1] - MEAN) / STD).mean((0, 1)), atol=0.01)


async def test_windows_of_planes(fleet: Fleets, tmp_path: Path) -> None:
    """A temporal model as it was exported: three frames a window, a head of classes."""
    nodes = [
        helper.make_node("ReduceMean", ["clip"], ["means"], axes=[3, 4], keepdims=0),
        helper.make_node("ReduceMean", ["means"], ["logits"], axes=[2], keepdims=0),
    ]
    outputs = [value("means", FLOAT, ["N", 3, 3]), value("logits", FLOAT, ["N", 3])]
    graph = model_of(nodes, [value("clip", FLOAT, ["N", 3, 3, 32, 32])], outputs)
    head = '[[heads]]\nkind = "classify"\noutput = "logits"\ntop = 1\nlabels = ["blue", "green", "red"]\n'
    put(tmp_path, graph, f'[[inputs]]\nname = "clip"\nlayout = "ncthw"\n{BGR}{head}')
    pipeline = written(tmp_path, to("npz"), "fps = 10\nwindow = { frames = 3, stride = 2 }")
    inputs = [film(tmp_path, size=(32, 32)), *stills(tmp_path, [(32, 32), (64, 64)])]
    of_film, of_album = [arrays(outcome) for outcome in await fleet.answers(pipeline, inputs, tmp_path / "out")]
    means = np.stack([((frame[..., ::-1] - MEAN) / STD).mean((0, 1)) for frame in frames_of(inputs[0])])
    expected = np.stack([means[[at, at + 1, min(at + 2, 19)]].T for at in range(0, 20, 2)])
    np.testing.assert_allclose(of_film["means"], expected, atol=1e-4)
    assert of_film["classes"][:, 0].tolist() == expected.mean(2).argmax(1).tolist()
    assert of_film["source_size"].tolist() == [[32, 32]] * 10
    still = ((frames_of(inputs[1])[0][..., ::-1] - MEAN) / STD).mean((0, 1))
    np.testing.assert_allclose(of_album["means"][0], np.stack([still] * 3, 1), atol=1e-4)


async def test_constants_beside_a_picture(fleet: Fleets, tmp_path: Path) -> None:
    """A gain [1], and a sampling rate that is no array at all."""
    nodes = [
        *MEANS,
        helper.make_node("Mul", ["s", "gain"], ["t"]),
        helper.make_node("Cast", ["sr"], ["rate"], to=FLOAT),
        helper.make_node("Mul", ["t", "rate"], ["score"]),
    ]
    inputs = [PIXELS, value("gain", FLOAT, [1]), value("sr", INT64, [])]
    graph = model_of(nodes, inputs, [value("score", FLOAT, ["N"])])
    put(tmp_path, graph)
    assert "give it a value" in check(written(tmp_path, to("npz")))
    card = '[[inputs]]\nname = "gain"\nvalue = [4.0]\n[[inputs]]\nname = "sr"\nvalue = 16000\n'
    of_film, _ = await answered(fleet, tmp_path, graph, card)
    expected = [4.0 * 16000 * frame.mean() for frame in frames_of(tmp_path / "film.mp4")]
    np.testing.assert_allclose(of_film["score"], expected, rtol=1e-5)


async def test_a_state_goes_from_frame_to_frame_of_a_segment(fleet: Fleets, tmp_path: Path) -> None:
    """The sum of the means so far: of a segment (five frames here), or of an image."""
    nodes = [
        *MEANS,
        helper.make_node("Add", ["s", "state"], ["state_out"]),
        helper.make_node("Identity", ["state_out"], ["score"]),
    ]
    pixels, state = value("pixels", UINT8, [1, 32, 32, 3]), value("state", FLOAT, [1])
    graph = model_of(nodes, [pixels, state], [value("state_out", FLOAT, [1]), value("score", FLOAT, [1])])
    card = '[[inputs]]\nname = "state"\nstate = { output = "state_out", start = 2 }\n'
    of_film, of_album = await answered(fleet, tmp_path, graph, card)
    assert set(of_film) == {"times", "score"}
    means = np.array([frame.mean() for frame in frames_of(tmp_path / "film.mp4")])
    np.testing.assert_allclose(of_film["score"], 2 + means.reshape(-1, 5).cumsum(1).reshape(-1), rtol=1e-5)
    singles = [frames_of(tmp_path / "still0.png")[0].mean(), halved(frames_of(tmp_path / "still1.png")[0]).mean()]
    np.testing.assert_allclose(of_album["score"], 2 + np.array(singles), rtol=1e-3)


MEMORY = 7  # windows that the filter remembers


def filter_of(shape: list[int | str]) -> bytes:
    """A recurrent graph with a memory of exactly MEMORY windows: the weighted sum of their means and the newest one."""
    axes = list(range(1, len(shape)))
    nodes = [
        helper.make_node("Cast", ["pixels"], ["f"], to=FLOAT),
        helper.make_node("ReduceMean", ["f"], ["s"], axes=axes, keepdims=0),
        helper.make_node("Unsqueeze", ["s", "one"], ["newest"]),
        helper.make_node("Concat", ["state", "newest"], ["all"], axis=1),
        helper.make_node("Slice", ["all", "one", "end", "one"], ["state_out"]),
        helper.make_node("Mul", ["all", "weights"], ["products"]),
        helper.make_node("ReduceSum", ["products", "one"], ["score"], keepdims=0),
    ]
    weights = np.random.default_rng(3).normal(size=(1, MEMORY + 1))
    constants = (constant("one", [1], "i8"), constant("end", [1 << 40], "i8"), constant("weights", weights, "f4"))
    inputs = [value("pixels", UINT8, shape), value("state", FLOAT, [1, MEMORY])]
    return model_of(nodes, inputs, [value("state_out", FLOAT, [1, MEMORY]), value("score", FLOAT, [1])], constants)


def filtered(graph: bytes, windows: list[Array]) -> list[float]:
    """The answers of one pass over all windows, by ONNX Runtime alone."""
    state, scores = np.zeros((1, MEMORY), np.float32), []
    for window in windows:
        found = plainly(graph, pixels=window[None], state=state)
        state = found["state_out"]
        scores.append(float(found["score"][0]))
    return scores


@pytest.mark.parametrize("segment_s", [0.5, 1.0, 60.0])
async def test_with_a_warm_up_of_its_memory_a_model_answers_as_in_one_pass(
    fleet: Fleets, tmp_path: Path, segment_s: float
) -> None:
    """However the film is cut, bit for bit; every frame, and windows of three ticks that overlap.

    The card of the model says how long the warm-up is, or the pipeline does.
    """
    path = film(tmp_path, frames=40, size=(32, 32))
    frames = frames_of(path)
    looks = [np.stack([frames[min(at + step, 39)] for step in (0, 2, 4)]) for at in range(0, 40, 2)]
    for name, windows, shape, state, decode in (
        ("frames", frames, [1, 32, 32, 3], f", warm_up = {MEMORY}", ""),
        ("windows", looks, [1, 3, 32, 32, 3], "", f"fps = 5\nwindow = {{ frames = 3 }}\nwarm_up = {MEMORY}"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        graph = filter_of(list(shape))
        card = f'[[inputs]]\nname = "state"\nstate = {{ output = "state_out"{state} }}\n'
        card += '[[inputs]]\nname = "pixels"\nreads = "pixels"\n' if name == "windows" else ""
        put(folder, graph, card)
        resize = '[[stage]]\nkind = "resize"\nsize = [32, 32]\n' if name == "windows" else ""
        pipeline = written(folder, resize + to("npz"), decode)
        pipeline.write_text(pipeline.read_text().replace("segment_s = 0.5", f"segment_s = {segment_s}"))
        [outcome] = await fleet.answers(pipeline, [path], folder / "out")
        found = arrays(outcome)
        assert found["score"].tolist() == filtered(graph, windows)
        assert len(found["times"]) == len(windows)


async def test_a_warm_up_needs_a_model_with_a_state(tmp_path: Path) -> None:
    put(tmp_path, model_of(MEANS, [PIXELS], [value("s", FLOAT, ["N"])]))
    found = check(written(tmp_path, to("npz"), "warm_up = 3"))
    assert "stage `decode`: warm_up is for models with a state, and no stage runs one" in found


@pytest.mark.parametrize("lacking", ["input", "output"])
async def test_a_graph_without_a_batch(fleet: Fleets, tmp_path: Path, lacking: str) -> None:
    cast = helper.make_node("Cast", ["pixels"], ["c"], to=FLOAT)
    if lacking == "input":
        nodes, shape = [cast, helper.make_node("Identity", ["c"], ["f"])], [32, 32, 3]
    else:
        nodes, shape = [cast, helper.make_node("Squeeze", ["c", "first"], ["f"])], [1, 32, 32, 3]
    output = value("f", FLOAT, [32, 32, 3])
    graph = model_of(nodes, [value("pixels", UINT8, shape)], [output], (constant("first", [0], "i8"),))
    put(tmp_path, graph)
    assert 'batch = "none"' in check(written(tmp_path, to("npz")))
    of_film, of_album = await answered(fleet, tmp_path, graph, 'batch = "none"\n')
    assert of_film["f"].tolist() == np.stack(frames_of(tmp_path / "film.mp4")).tolist()
    assert of_album["f"][0].tolist() == frames_of(tmp_path / "still0.png")[0].tolist()
    assert np.abs(of_album["f"][1] - halved(frames_of(tmp_path / "still1.png")[0])).max() <= 1


async def test_loops(fleet: Fleets, tmp_path: Path) -> None:
    one = constant("one", 1, "f4")
    add = [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["x", "one"], ["y"])]
    given = [value("i", INT64, []), value("go", TensorProto.BOOL, []), value("x", FLOAT, ["N"])]
    body = helper.make_graph(add, "b", given, [value("go_on", TensorProto.BOOL, []), value("y", FLOAT, ["N"])], [one])
    loop = helper.make_node("Loop", ["five", "yes", "s"], ["score"], body=body)
    constants = (constant("five", 5, "i8"), constant("yes", True, "?"))
    graph = model_of([*MEANS, loop], [PIXELS], [value("score", FLOAT, ["N"])], constants)
    of_film, _ = await answered(fleet, tmp_path, graph, "")
    expected = [frame.mean() + 5 for frame in frames_of(tmp_path / "film.mp4")]
    np.testing.assert_allclose(of_film["score"], expected, rtol=1e-5)


async def test_values_that_are_no_numbers_are_counted(fleet: Fleets, tmp_path: Path) -> None:
    nodes = [
        *MEANS,
        helper.make_node("Sub", ["s", "s"], ["zero"]),
        helper.make_node("Div", ["zero", "zero"], ["score"]),
    ]
    put(tmp_path, model_of(nodes, [PIXELS], [value("score", FLOAT, ["N"])]))
    [outcome] = await fleet.answers(written(tmp_path, to("jsonl")), [film(tmp_path)], tmp_path / "out")
    assert outcome.done is not None
    assert outcome.done.notes == ("output `score`: 20 of 20 windows have values that are not finite",)
