"""Pictures of tiny Stable Diffusions: beside a loop of one's own, and what the folders' graphs may differ in."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from engines.content import graph_of
from engines.diffusion.drawing import Drawing
from engines.diffusion.noise import normal
from engines.diffusion.tokens import ClipTokens
from engines.part import no_tick
from schemas.errors import ItemTooLarge, ModelError, PipelineError
from tests.clip_tokens import END, START, vocabulary
from tests.diffusion_sessions import opened, session, taken
from tests.stable import MERGES, decoder, encoder, stable_folder, text_encoder, unet

WORDS = vocabulary(MERGES)


def plain(folder: Path, name: str, **feed: Any) -> Any:
    """The first output of a network, by ONNX Runtime alone."""
    run = onnxruntime.InferenceSession(str(folder / name / "model.onnx"), providers=["CPUExecutionProvider"])
    return run.run(None, feed)[0]


def test_a_picture_is_what_the_formulas_say(tmp_path: Path) -> None:
    """Euler's method with guidance, written out."""
    folder = stable_folder(tmp_path / "m", schedule={"timestep_spacing": "leading"})
    drawing = Drawing("a cat", "red dog", (40, 24), steps=5, guidance=3.0, sampler="euler", seed=11)
    found, notes = opened(folder).draw(drawing, no_tick)

    def ids(*words: str) -> Any:
        made = [WORDS[START], *(WORDS[word] for word in words)]
        return np.array([made + [WORDS[END]] * (77 - len(made))], np.int32)

    states = np.concatenate(
        [plain(folder, "text_encoder", input_ids=each) for each in (ids("red</w>", "dog</w>"), ids("a</w>", "cat</w>"))]
    )
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    timesteps = [801, 601, 401, 201, 1]
    sigmas = [*(((1 - alphas[each]) / alphas[each]) ** 0.5 for each in timesteps), 0.0]
    latents = normal(11, 0, (1, 4, 5, 3)) * (sigmas[0] ** 2 + 1) ** 0.5
    for step, timestep in enumerate(timesteps):
        seen = np.repeat(latents / (sigmas[step] ** 2 + 1) ** 0.5, 2, axis=0).astype(np.float32)
        given = {"sample": seen, "timestep": np.array([timestep]), "encoder_hidden_states": states}
        negative, positive = plain(folder, "unet", **given)
        latents = latents + (sigmas[step + 1] - sigmas[step]) * (negative + 3 * (positive - negative))
    values = plain(folder, "vae_decoder", latent_sample=(latents / 0.18215).astype(np.float32))[0]
    expected = np.round(np.clip(values / 2 + 0.5, 0, 1).transpose(1, 2, 0) * 255)
    assert found.shape == (40, 24, 3)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 1
    assert found.std() > 20
    assert notes == []


def test_each_wish_changes_the_picture_and_nothing_else_does(tmp_path: Path) -> None:
    drawn = session(tmp_path)
    base = Drawing("a cat", steps=3, seed=1)
    wishes: list[dict[str, Any]] = [
        {"prompt": "a dog"},
        {"negative": "red"},
        {"seed": 2},
        {"steps": 4},
        {"guidance": 2.0},
        {"guidance": 0.0},
        {"sampler": "ddim"},
        {"sampler": "euler-a"},
        {"sampler": "dpmpp-2m-karras"},
        {"sampler": "unipc"},
        {"sampler": "lcm"},
        {"prediction": "v_prediction"},
        {"spacing": "trailing"},
        {"picture": np.full((32, 32, 3), 90, np.uint8), "strength": 0.5},
    ]
    fields = {name: getattr(base, name) for name in Drawing.__slots__}
    pictures = [drawn.draw(Drawing(**{**fields, **wish}), no_tick)[0].tobytes() for wish in ({}, *wishes)]
    assert len(set(pictures)) == len(pictures)
    assert drawn.draw(base, no_tick)[0].tobytes() == pictures[0]
    assert drawn.manner(base) == ((32, 32), 3, 7.5)


def test_graphs_of_other_types_and_sizes_draw_the_same(tmp_path: Path) -> None:
    """A batch of one, a batch of two, a timestep without dimension, int64 ids, tokenizer.json, weights in a file."""
    base = Drawing("a cat and a dog", "red", steps=4, guidance=4.0, seed=3)
    expected, _ = session(tmp_path).draw(base, no_tick)
    others: list[dict[str, Any]] = [
        {"graphs": {"unet": unet(batch=1, timestep=())}},
        {"graphs": {"unet": unet(batch=2, timestep=(2,))}},
        {"graphs": {"unet": unet(batch=4, timestep=(1,))}},
        {"graphs": {"text_encoder": text_encoder(ids=TensorProto.INT64)}},
        {"whole": True},
        {"external": True},
    ]
    for number, other in enumerate(others):
        found, _ = session(tmp_path / str(number), **other).draw(base, no_tick)
        assert np.abs(found.astype(int) - expected).max() <= 1, other
    half, _ = session(tmp_path / "half", graphs={"unet": unet(half=True)}).draw(base, no_tick)
    assert np.abs(half.astype(int) - expected).mean() < 16, "float16 rounds"


def test_large_weights_stay_in_a_file_of_their_own(tmp_path: Path) -> None:
    large = text_encoder(layers=4)
    folder = stable_folder(tmp_path / "m", graphs={"text_encoder": None})
    (folder / "text_encoder").mkdir()
    onnx.save(large, folder / "text_encoder" / "model.onnx", save_as_external_data=True, location="weights.pb")
    content = taken(folder)
    sizes = {file.name: file.size for file in content.files}
    assert sizes["weights.pb"] > 10_000
    assert sizes["text_encoder.model.onnx"] < 5_000
    assert opened(folder).draw(Drawing("cat", steps=2), no_tick)[0].shape == (32, 32, 3)


def test_xl_has_two_encoders_and_sizes(tmp_path: Path) -> None:
    drawn = session(tmp_path, xl=True)
    base = Drawing("a cat", steps=2, seed=5)
    assert drawn.manner(Drawing("a")) == ((32, 32), 30, 5.0)
    first = drawn.draw(base, no_tick)[0]
    assert np.array_equal(first, drawn.draw(base, no_tick)[0])
    assert not np.array_equal(first, drawn.draw(Drawing("a cat", steps=2, seed=5, clip_skip=1), no_tick)[0])
    assert not np.array_equal(first, drawn.draw(Drawing("a cat", "red", steps=2, seed=5), no_tick)[0])
    with pytest.raises(ModelError, match="no output of the layer 6 from its end: lower clip_skip"):
        drawn.draw(Drawing("a cat", clip_skip=4), no_tick)


def test_clip_skip_leaves_out_layers_and_keeps_the_norm(tmp_path: Path) -> None:
    """As if the text encoder had fewer layers."""
    drawn = session(tmp_path / "3", graphs={"text_encoder": text_encoder(blocks=3)})
    for skipped in (0, 1, 2):
        shorter = _without_blocks(text_encoder(blocks=3), skipped)
        folder = stable_folder(tmp_path / f"short{skipped}", graphs={"text_encoder": shorter})
        expected = opened(folder).draw(Drawing("a cat", steps=2, seed=5), no_tick)[0]
        found = drawn.draw(Drawing("a cat", steps=2, seed=5, clip_skip=skipped), no_tick)[0]
        assert np.array_equal(found, expected)
    with pytest.raises(PipelineError, match="can leave out 2 of its last layers, and clip_skip is 3: lower clip_skip"):
        drawn.draw(Drawing("a cat", clip_skip=3), no_tick)
    with pytest.raises(PipelineError, match="can leave out none of its last layers, and clip_skip is 1"):
        session(tmp_path / "1").draw(Drawing("a cat", clip_skip=1), no_tick)


def _without_blocks(model: onnx.ModelProto, count: int) -> onnx.ModelProto:
    """The norm at the end reads the states of an earlier layer."""
    sums = [node.output[0] for node in model.graph.node if node.op_type == "Add"]
    next(node for node in model.graph.node if "last_hidden_state" in node.output).input[0] = sums[-1 - 2 * count]
    return model


def test_turbo_and_lcm_take_few_steps(tmp_path: Path) -> None:
    trailing = {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}
    assert session(tmp_path / "t", schedule=trailing).manner(Drawing("a")) == ((32, 32), 4, 0.0)
    lcm = session(tmp_path / "l", schedule={"_class_name": "LCMScheduler"}, graphs={"unet": unet(inside=True)})
    assert lcm.manner(Drawing("a")) == ((32, 32), 4, 8.5)
    pictures = [lcm.draw(Drawing("a cat", guidance=each, seed=1), no_tick)[0] for each in (8.5, 2.0)]
    assert not np.array_equal(*pictures), "the guidance is an input"
    merged = session(tmp_path / "m", schedule={"_class_name": "LCMScheduler"})
    assert merged.manner(Drawing("a")) == ((32, 32), 4, 1.0)


def test_a_picture_begins_with_another_the_more_the_lower_its_strength(tmp_path: Path) -> None:
    drawn, given = session(tmp_path), np.full((32, 32, 3), 200, np.uint8)
    apart = []
    for strength in (0.1, 0.5, 1.0):
        wish = Drawing("cat", steps=10, sampler="ddim", picture=given, strength=strength, guidance=0.0, seed=2)
        plain_wish = Drawing("cat", steps=10, sampler="ddim", guidance=0.0, seed=2)
        found, whole = (drawn.draw(each, no_tick)[0].astype(int) for each in (wish, plain_wish))
        apart.append(float(np.abs(found - whole).mean()))
    assert apart[0] > apart[1] > apart[2]


def test_an_encoder_that_draws_noise_by_itself_gives_the_mean(tmp_path: Path) -> None:
    given = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    wish = Drawing("cat", steps=4, picture=given, strength=0.5, seed=2)
    folder = stable_folder(tmp_path / "a", graphs={"vae_encoder": encoder(draws=True)})
    first, second = (opened(folder).draw(wish, no_tick)[0] for _ in range(2))
    assert np.array_equal(first, second)


def test_numbers_that_are_none_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="m: vae_decoder gave numbers that are none, so there is no picture"):
        session(tmp_path / "d", graphs={"vae_decoder": decoder(broken=True)}).draw(Drawing("cat", steps=2), no_tick)
    with pytest.raises(ModelError, match="m: unet gave numbers that are none in step 1"):
        session(tmp_path / "u", graphs={"unet": unet(factor=float("nan"))}).draw(Drawing("cat", steps=2), no_tick)


def test_sizes_are_checked(tmp_path: Path) -> None:
    drawn = session(tmp_path)
    with pytest.raises(PipelineError, match="36x32 are no multiples of 8"):
        drawn.draw(Drawing("cat", size=(32, 36)), no_tick)
    with pytest.raises(ItemTooLarge, match="2048x1024 has more pixels than the setting max_pixels"):
        drawn.draw(Drawing("cat", size=(1024, 2048)), no_tick)
    fixed = session(tmp_path / "f", graphs={"unet": unet(side=4)})
    assert fixed.draw(Drawing("cat", steps=1), no_tick)[0].shape == (32, 32, 3)
    with pytest.raises(PipelineError, match="m draws pictures of 32x32 alone, and 40x32 is wanted"):
        fixed.draw(Drawing("cat", size=(32, 40)), no_tick)


def test_prompts_that_are_too_long_are_cut_and_said(tmp_path: Path) -> None:
    drawn = session(tmp_path)
    long = "cat " * 76
    first, notes = drawn.draw(Drawing(long, steps=1), no_tick)
    assert notes == ["a prompt has more than 75 tokens, and the rest was not read"]
    cut, none = drawn.draw(Drawing("cat " * 75, steps=1), no_tick)
    assert none == []
    assert np.array_equal(first, cut)
    _, notes = drawn.draw(Drawing("é" * (2 << 20), steps=1), no_tick)
    assert len(notes) == 1


def test_tokens_are_those_of_the_files(tmp_path: Path) -> None:
    folder = stable_folder(tmp_path / "m", xl=True)
    content = taken(folder)
    ids, longer = ClipTokens(content, "tokenizer", "m").ids("  A  Cat,\n dog42 ")
    words = ["a</w>", "cat</w>", ",</w>", "dog</w>", "4</w>", "2</w>"]
    assert ids[0, :8].tolist() == [WORDS[START], *(WORDS[word] for word in words), WORDS[END]]
    assert set(ids[0, 8:].tolist()) == {WORDS[END]}
    assert not longer
    second, _ = ClipTokens(content, "tokenizer_2", "m").ids("cat")
    assert set(second[0, 3:].tolist()) == {WORDS["!"]}


@pytest.mark.parametrize(
    ("break_it", "text"),
    [
        (lambda folder: (folder / "scheduler/scheduler_config.json").unlink(), "has no scheduler/scheduler_config"),
        (lambda folder: (folder / "tokenizer/merges.txt").unlink(), "no tokenizer/tokenizer.json, nor vocab.json"),
        (lambda folder: (folder / "unet/model.onnx").unlink(), "no unet/model.onnx: its networks are no ONNX files"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "model_index.json is no JSON"),
        (lambda folder: (folder / "model_index.json").write_text("[1]"), "model_index.json is no JSON object"),
        (lambda folder: (folder / "tokenizer/merges.txt").write_text("a b c\n"), "merges.txt has a line that is no"),
        (lambda folder: (folder / "tokenizer/vocab.json").write_text('{"a": "b"}'), "tokenizer"),
        (lambda folder: (folder / "unet/model.onnx").write_bytes(b"no graph"), "m: unet"),
        (lambda folder: onnx.save(text_encoder(), folder / "unet/model.onnx"), "m: unet has no input sample"),
        (
            lambda folder: (folder / "vae_decoder/config.json").write_text(json.dumps({"scaling_factor": "x"})),
            "config.json has no number scaling_factor",
        ),
        (
            lambda folder: onnx.save(encoder(draws=True), folder / "vae_decoder/model.onnx"),
            "vae_decoder/model.onnx draws random numbers by itself",
        ),
    ],
)
def test_a_damaged_folder_is_refused_in_words(break_it: Any, text: str, tmp_path: Path) -> None:
    folder = stable_folder(tmp_path / "m")
    break_it(folder)
    with pytest.raises(ModelError) as raised:
        opened(folder)
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


def test_other_pipelines_of_diffusers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "flux").mkdir()
    (tmp_path / "flux" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ModelError, match="is a FluxPipeline, which rigflow does not run"):
        taken(tmp_path / "flux")


def test_the_main_file_is_the_index(tmp_path: Path) -> None:
    content = taken(stable_folder(tmp_path / "m"))
    assert json.loads(graph_of(content))["_class_name"] == "StableDiffusionPipeline"
