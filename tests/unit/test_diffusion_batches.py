"""Pictures of tiny Stable Diffusions that are computed together: each is what it is alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.diffusion.drawing import Drawing
from engines.part import no_tick
from schemas.errors import ModelError, PipelineError
from tests.diffusion_sessions import opened, session
from tests.stable import decoder, stable_folder, unet


@pytest.mark.parametrize("timestep", [("steps",), (1,), ()], ids=["each", "one", "none"])
def test_pictures_of_a_batch_have_the_bits_that_they_have_alone(timestep: Any, tmp_path: Path) -> None:
    """Of all steps, sizes and samplers, beside pictures that fail; the last batch is not full."""
    graphs = {"unet": unet(timestep=timestep), "vae_decoder": decoder()}
    folder = stable_folder(tmp_path / "m", graphs=graphs)
    drawn, runs = opened(folder, together=True), []
    network = drawn._unet
    run = network.run

    def counted(feed: Any, *more: Any) -> Any:
        runs.append(len(feed["sample"]))
        return run(feed, *more)

    network.run = counted  # type: ignore[method-assign]
    given = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    wishes = [
        Drawing("a cat", steps=4, seed=1),
        Drawing("a dog", "red", steps=6, seed=2, sampler="euler-a"),
        Drawing("a dog", size=(32, 36)),
        Drawing("cat", steps=4, seed=3, guidance=0.0),
        Drawing("a dog", steps=2, seed=4, sampler="unipc"),
        Drawing("a cat " * 99, steps=4, seed=5),
        Drawing("cat", steps=8, seed=6, picture=given, strength=0.5),
        Drawing("dog", steps=4, seed=7, size=(64, 16)),
        Drawing("dog", steps=4, seed=8, guidance=9.0),
    ]
    together = drawn.draw_all(wishes, 3, no_tick)
    assert set(runs) == {3, 6}, "rows of three pictures, with and without guidance"
    shared = len(runs)
    for wish, found in zip(wishes, together, strict=True):
        [alone] = drawn.draw_all([wish], 3, no_tick)
        if isinstance(found, PipelineError):
            assert str(found) == str(alone)
        else:
            assert not isinstance(found, Exception)
            assert not isinstance(alone, Exception)
            assert found[0].tobytes() == alone[0].tobytes()
            assert found[1] == alone[1]
    assert shared < len(runs) - shared, "they shared batches"
    assert [isinstance(found, PipelineError) for found in together].count(True) == 1
    apart = opened(folder).draw_all(wishes, 3, no_tick)
    for found, alone in zip(together, apart, strict=True):
        if isinstance(found, tuple) and isinstance(alone, tuple):
            assert np.abs(found[0].astype(int) - alone[0]).max() <= 1


def test_what_is_the_same_at_each_step_is_made_once(tmp_path: Path) -> None:
    drawn = opened(stable_folder(tmp_path / "m", graphs={"unet": unet(half=True)}), together=True)
    network, seen = drawn._unet, []
    run = network.run

    def noted(feed: Any, *more: Any) -> Any:
        seen.append(feed["encoder_hidden_states"])
        return run(feed, *more)

    network.run = noted  # type: ignore[method-assign]
    drawn.draw_all([Drawing(words, steps=6) for words in ("a cat", "dog")], 2, no_tick)
    assert len(seen) > 6
    assert len({id(array) for array in seen[-6:]}) == 1
    assert seen[-1].dtype == np.float16


@pytest.mark.parametrize(
    ("every", "batch", "words"), [(1, 3, "one at a time"), (4, 4, "2 at a time"), ("last", 4, ""), ("last two", 3, "")]
)
def test_where_bits_depend_on_the_place_fewer_pictures_are_computed_together(
    every: int | str, batch: int, words: str, tmp_path: Path
) -> None:
    """A UNet whose answer is a little larger in each row of a batch, behind every fourth, or in the last ones, as that
    of a GPU's kernels may be: an H200's in the last picture.
    """
    model = unet()
    made = model.graph.node[-1]
    made.output[0] = "plain"
    place = numpy_helper.from_array(np.array([-1, 1, 1, 1]), "place")
    model.graph.initializer.append(place)
    numbers = {"zero": np.int64(0), "one": np.int64(1), "every": np.int64(every if isinstance(every, int) else 1)}
    numbers["but"] = np.int64(2 if every == "last two" else 1)
    for name, each in {"step": np.float32(1e-3), **numbers}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(each), name))
    ends = [("Sub", ["rows", "but"], "end"), ("Less", ["numbers", "end"], "before"), ("Not", ["before"], "fours")]
    fours = [("Div", ["numbers", "every"], "fours")] if isinstance(every, int) else ends
    for kind, inputs, output in (
        ("Shape", ["sample"], "shape"),
        ("Gather", ["shape", "zero"], "rows"),
        ("Range", ["zero", "rows", "one"], "numbers"),
        *fours,
        ("Reshape", ["fours", "place"], "column"),
        ("Cast", ["column"], "floats"),
        ("Mul", ["floats", "step"], "more"),
        ("Add", ["plain", "more"], "out_sample"),
    ):
        more = {"to": TensorProto.FLOAT} if kind == "Cast" else {}
        model.graph.node.append(helper.make_node(kind, inputs, [output], **more))
    drawn = opened(stable_folder(tmp_path / "m", graphs={"unet": model}), together=True)
    wishes = [Drawing("a cat", steps=3, seed=seed) for seed in range(4)]
    found = drawn.draw_all(wishes, batch, no_tick)
    for wish, picture in zip(wishes, found, strict=True):
        [alone], [single] = drawn.draw_all([wish], batch, no_tick), drawn.draw_all([wish], 1, no_tick)
        assert isinstance(picture, tuple)
        assert isinstance(alone, tuple)
        assert isinstance(single, tuple)
        assert picture[0].tobytes() == alone[0].tobytes()
        note = f"pictures were computed {words}: on this device bits depend on the place in a batch of {batch}"
        assert picture[1] == ([note] if words else [])
        assert (picture[1], single[1]) == (alone[1], [])


def test_a_graph_with_a_batch_of_its_own_gets_several_pictures(tmp_path: Path) -> None:
    drawn = session(tmp_path, graphs={"unet": unet(batch=8, timestep=(1,))})
    wishes = [
        Drawing(prompt, steps=3, seed=seed) for seed, prompt in enumerate(("a cat", "a dog", "red", "cat", "dog"))
    ]
    for wish, found in zip(wishes, drawn.draw_all(wishes, 1, no_tick), strict=True):
        assert isinstance(found, tuple)
        assert found[0].tobytes() == drawn.draw(wish, no_tick)[0].tobytes()


def test_a_picture_of_a_batch_that_fails_leaves_the_others(tmp_path: Path) -> None:
    """One row becomes NaN by a number that is too large for float16."""
    drawn = opened(stable_folder(tmp_path / "m", graphs={"unet": unet(half=True)}), together=True)
    wishes = [Drawing("a cat", steps=3, seed=1), Drawing("a dog", steps=3, guidance=1e38, sampler="ddim", seed=2)]
    with np.errstate(all="ignore"):
        good, bad = drawn.draw_all(wishes, 2, no_tick)
    [alone] = drawn.draw_all(wishes[:1], 2, no_tick)
    assert isinstance(bad, ModelError)
    assert isinstance(good, tuple)
    assert isinstance(alone, tuple)
    assert good[0].tobytes() == alone[0].tobytes()
