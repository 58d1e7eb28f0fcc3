"""The models that come with rigflow, against plain NumPy and against real clips; and those that users bring."""

import hashlib
import re
import sys
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path

import av
import numpy as np
import onnx
import pytest
from av.video.reformatter import Interpolation, VideoReformatter
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models import fingerprint, lanczos2x, shotchange
from engines.models.catalogue import builtin_model, builtin_models, load_model
from engines.part import Array
from engines.plan import plan_pipeline
from schemas.errors import ExitCode, ModelError, PipelineError
from schemas.model import PictureSpec
from schemas.pipeline import ModelSpec, PipelineSpec, TensorSpec, parse_pipeline
from tests.clips import real_clip

CLIPS = ("bigbuckbunny", "bikes", "carphone_pristine")
BIKES_CUTS = (29, 75, 136, 186, 241)  # seen with one's own eyes: the last frame of each shot


@cache
def run(model: str) -> Callable[[Array], Array]:
    """A model of one input and one output, as a function."""
    spec, body = builtin_model(model)
    session = OnnxRuntimeSession(body, spec)
    return lambda array: session.run({spec.inputs[0].name: array})[spec.outputs[0].name]


@cache
def frames(path: Path, size: tuple[int, int], layout: str) -> tuple[Array, Array]:
    """All frames `[F, ...]` in `layout`, resized to height, width, and their seconds."""
    images, seconds = [], []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        reformatter = VideoReformatter()
        for frame in container.decode(stream):
            small = reformatter.reformat(
                frame, width=size[1], height=size[0], format=layout, interpolation=Interpolation.AREA
            )
            images.append(small.to_ndarray())
            seconds.append(float(frame.pts * frame.time_base))
    return np.stack(images), np.array(seconds) - seconds[0]


def windows(path: Path) -> Array:
    """`[W, 5, 32, 32]`: the windows of the pipeline `fingerprint`."""
    pixels, seconds = frames(path, (32, 32), "gray")
    ticks = np.arange(0, seconds[-1] + 1e-6, 0.2)
    ticks = ticks[: len(ticks) // 5 * 5]
    rows = np.searchsorted(seconds, ticks + 1e-6, side="right") - 1
    return pixels[rows].reshape(-1, 5, 32, 32)


def cosine(a: Array, b: Array) -> Array:
    return np.asarray((a.astype(float) * b).sum(axis=-1))


# fingerprint


def fingerprint_by_hand(pixels: Array) -> Array:
    """The formula of docs/models.md, frequency by frequency."""
    place = np.arange(32)
    answers = np.zeros((len(pixels), 64))
    for window, images in enumerate(pixels.astype(float)):
        for image in images:
            balanced = np.zeros((8, 8))
            for u in range(8):
                for v in range(8):
                    down, across = (np.cos(np.pi * f * (2 * place + 1) / 64) for f in (u, v))
                    scale = np.sqrt((1 if u == 0 else 2) * (1 if v == 0 else 2)) / 32
                    balanced[u, v] = np.hypot(u, v) * scale * (down @ image @ across) / 32
            balanced[0, 0] = 1.0
            answers[window] += balanced.ravel() / np.linalg.norm(balanced)
    return answers / np.linalg.norm(answers, axis=1, keepdims=True)


@settings(max_examples=20)
@given(count=st.integers(1, 3), length=st.integers(1, 6), spread=st.integers(0, 127), seed=st.integers(0, 99))
@example(count=1, length=1, spread=0, seed=0)
def test_fingerprint_is_its_formula(count: int, length: int, spread: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(128 - spread, 129 + spread, (count, length, 32, 32)).astype(np.uint8)
    answer = run("fingerprint")(pixels)
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, fingerprint_by_hand(pixels), atol=3e-5)
    np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1, atol=1e-6)


def reencoded(source: Path, target: Path, codec: str, scale: float, **options: str) -> Path:
    """The picture of `source`, coded anew."""
    with av.open(source) as old, av.open(target, "w") as new:
        stream = old.streams.video[0]
        stream.thread_type = "NONE"
        video = new.add_stream(codec, rate=stream.average_rate, options=options)
        video.width, video.height = (int(size * scale) // 2 * 2 for size in (stream.width, stream.height))
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        reformatter = VideoReformatter()
        for frame in old.decode(stream):
            small = reformatter.reformat(frame, width=video.width, height=video.height, format="yuv420p")
            small.pict_type = 0
            new.mux(video.encode(small))
        new.mux(video.encode())
    return target


RECODINGS = {
    "low.mp4": ("libx264", 1.0, {"crf": "38", "preset": "ultrafast"}),
    "small.mkv": ("libx264", 0.25, {"crf": "30", "preset": "veryfast"}),
    "half.avi": ("mpeg4", 0.5, {"b": "200k"}),
    "third.webm": ("libvpx-vp9", 0.375, {"crf": "45", "b": "0", "cpu-used": "8", "deadline": "realtime"}),
}


@pytest.mark.parametrize("clip", CLIPS)
def test_descriptors_survive_another_bitrate_size_codec_and_container(
    clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = run("fingerprint")(windows(real_clip(clip)))
    least = {}
    for name, (codec, scale, options) in RECODINGS.items():
        copy = windows(reencoded(real_clip(clip), tmp_path / name, codec, scale, **options))
        least[name] = cosine(original, run("fingerprint")(copy)).min()
    with capsys.disabled():
        print(f"\n{clip}, least cosine of a window with its copy:", *(f"{k} {v:.4f}" for k, v in least.items()))
    assert min(least.values()) > 0.98


def test_descriptors_of_different_clips_are_apart(capsys: pytest.CaptureFixture[str]) -> None:
    answers = [run("fingerprint")(windows(real_clip(clip))) for clip in CLIPS]
    between = np.concatenate([(answers[a] @ answers[b].T).ravel() for a, b in ((0, 1), (0, 2), (1, 2))])
    with capsys.disabled():
        print(f"\nwindows of different clips, cosine: mean {between.mean():.2f}, highest {between.max():.2f}")
    assert between.max() < 0.6
    assert abs(between.mean()) < 0.2


def test_descriptors_do_not_mind_brightness_and_contrast() -> None:
    for clip in CLIPS:
        pixels = windows(real_clip(clip))
        changed = np.rint(pixels * 0.7 + 30).astype(np.uint8)
        assert cosine(run("fingerprint")(pixels), run("fingerprint")(changed)).min() > 0.995


def test_a_still_picture_has_one_descriptor_however_long_it_is_shown() -> None:
    still = windows(real_clip("bikes"))[:1, :1]
    answers = [run("fingerprint")(still.repeat(length, axis=1)) for length in (1, 5)]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


def test_flat_pictures_are_alike_and_unlike_any_other() -> None:
    black, white = np.zeros((1, 5, 32, 32), np.uint8), np.full((1, 5, 32, 32), 255, np.uint8)
    noisy = black + np.random.default_rng(0).integers(0, 2, black.shape, dtype=np.uint8)
    flat = [run("fingerprint")(each) for each in (black, white, noisy)]
    assert cosine(flat[0], flat[1]) > 0.9999
    assert cosine(flat[0], flat[2]) > 0.9
    assert cosine(flat[0], run("fingerprint")(windows(real_clip("bikes")))).max() < 0.2


# lanczos2x


def lanczos_by_hand(plane: Array) -> Array:
    """`[H, W]` -> `[2H, 2W]` float64, not yet rounded."""

    def doubled(rows: Array) -> Array:
        padded = np.pad(rows, ((0, 0), (3, 3)), "edge")
        out = np.zeros((len(rows), 2 * rows.shape[1]))
        for phase, centre in enumerate((-0.25, 0.25)):
            distances = centre - np.arange(-3, 4)
            weights = [np.sinc(d) * np.sinc(d / 3) if abs(d) < 3 else 0.0 for d in distances]
            for tap, weight in enumerate(weights):
                out[:, phase::2] += weight / sum(weights) * padded[:, tap : tap + rows.shape[1]]
        return out

    return doubled(doubled(plane.astype(float)).T).T


@settings(max_examples=40)
@given(
    count=st.integers(1, 3),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    binary=st.booleans(),
    seed=st.integers(0, 99),
)
@example(count=1, height=1, width=1, binary=True, seed=0)
@example(count=2, height=16, width=33, binary=True, seed=1)
def test_lanczos_is_its_formula(count: int, height: int, width: int, binary: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    planes = rng.integers(0, 256, (count, height, width), dtype=np.uint8)
    planes = (planes // 128 * 255).astype(np.uint8) if binary else planes  # the ringing of edges is clipped
    answer = run("lanczos2x")(planes)
    assert answer.dtype == np.uint8
    expected = np.clip([lanczos_by_hand(plane) for plane in planes], 0, 255)
    assert np.abs(answer - expected).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("clip", CLIPS)
def test_lanczos_is_within_rounding_of_the_float_reference(clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    with av.open(real_clip(clip)) as container:
        frame = next(container.decode(video=0))
        luma = frame.reformat(format="gray").to_ndarray()
    answer = run("lanczos2x")(luma[None])[0]
    psnr = 10 * np.log10(255**2 / np.mean((np.clip(lanczos_by_hand(luma), 0, 255) - answer) ** 2))
    with capsys.disabled():
        print(f"\n{clip}, upscaled luma against float64: {psnr:.1f} dB")
    assert psnr > 58  # rounding alone leaves 58.9


def test_lanczos_keeps_flat_pictures_flat() -> None:
    levels = np.arange(256, dtype=np.uint8)[:, None, None].repeat(5, axis=1).repeat(21, axis=2)
    np.testing.assert_array_equal(run("lanczos2x")(levels), levels.repeat(2, axis=1).repeat(2, axis=2))


# shotchange


def shotchange_by_hand(pixels: Array) -> Array:
    """The formula of docs/models.md, histogram by histogram."""
    scores = []
    for window in pixels.astype(float):
        red, green, blue = np.moveaxis(window.reshape(2, 18, 5, 32, 5, 3).mean((2, 4)), 3, 0)
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        chroma = [127.5 + (blue - luma) / 1.772, 127.5 + (red - luma) / 1.402]
        colour = 0.0
        for share, channel in zip((0.5, 0.25, 0.25), (luma, *chroma), strict=True):
            for y in range(0, 18, 6):
                for x in range(0, 32, 8):
                    region = channel[:, y : y + 6, x : x + 8].reshape(2, -1) * 7 / 255
                    bins = np.maximum(0, 1 - np.abs(region[:, None] - np.arange(8)[:, None])).mean(2)
                    colour += share / 12 * np.abs(bins[0] - bins[1]).sum() / 2
        a, b = (each - each.mean() for each in luma * 7 / 255)
        structure = 1 - (2 * (a * b).mean() + 0.003) / ((a * a).mean() + (b * b).mean() + 0.003)
        scores.append(1 / (1 + np.exp(-(np.sqrt(colour * np.clip(structure, 0, 1)) - 0.32) / 0.03)))
    return np.array(scores)


def pairs(clip: str) -> Array:
    images, _ = frames(real_clip(clip), (90, 160), "rgb24")
    return np.stack([images[:-1], images[1:]], axis=1)


def test_shotchange_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    images = np.concatenate([frames(real_clip(clip), (90, 160), "rgb24")[0][::9] for clip in CLIPS])
    mixed = np.stack([rng.permutation(images)[:24], rng.permutation(images)[:24]], axis=1)
    noise = rng.integers(0, 256, (4, 2, 90, 160, 3), dtype=np.uint8)
    for pixels in (mixed, noise, pairs("bikes")[20:40]):
        np.testing.assert_allclose(run("shotchange")(pixels), shotchange_by_hand(pixels), atol=2e-4)


def test_shotchange_finds_the_cuts_of_a_real_clip_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    scores = {clip: run("shotchange")(pairs(clip)) for clip in CLIPS}
    cuts = np.flatnonzero(scores["bikes"] > 0.3)
    within = [*np.delete(scores["bikes"], BIKES_CUTS), *scores["bigbuckbunny"], *scores["carphone_pristine"]]
    with capsys.disabled():
        print(f"\nshot changes: least on a cut {scores['bikes'][cuts].min():.3f}, highest elsewhere {max(within):.3f}")
    assert cuts.tolist() == list(BIKES_CUTS)
    assert scores["bikes"][cuts].min() > 0.9
    assert max(within) < 0.1


def score_of(first: Array, second: Array) -> float:
    return float(run("shotchange")(np.stack([first, second])[None])[0])


def test_shotchange_sees_every_cut_between_clips() -> None:
    shots = [frames(real_clip(clip), (90, 160), "rgb24")[0] for clip in CLIPS]
    for a, b in ((0, 1), (1, 2), (2, 0)):
        assert min(score_of(x, y) for x in shots[a][::30] for y in shots[b][::30]) > 0.9
        assert score_of(np.zeros_like(shots[a][0]), shots[b][0]) > 0.9


def test_shotchange_takes_motion_flicker_and_noise_for_one_shot() -> None:
    frame = frames(real_clip("bikes"), (90, 160), "rgb24")[0][40]
    noise = np.random.default_rng(0).normal(0, 15, frame.shape)
    for changed in (frame * 1.25 + 15, frame * 1.8 + 60, frame * 0.5, frame + noise, np.roll(frame, 12, axis=1)):
        assert score_of(frame, np.clip(changed, 0, 255).astype(np.uint8)) < 0.2
    assert score_of(frame, frame) < 1e-4


# all of them


def sample(model: str) -> Array:
    """A batch of sixteen rows of real pictures."""
    if model == "fingerprint":
        images, _ = frames(real_clip("bikes"), (32, 32), "gray")
        return images[:80].reshape(16, 5, 32, 32)
    if model == "shotchange":
        return pairs("bikes")[20:36]
    return frames(real_clip("bikes"), (90, 160), "gray")[0][:16, :85, :151]


@pytest.mark.parametrize("model", [model for model in builtin_models() if model != "simulated"])
def test_answers_do_not_depend_on_the_batch_bit_for_bit(model: str) -> None:
    batch = sample(model)
    together = run(model)(batch)
    for size in (1, 2, 3, 5, 7):
        apart = [run(model)(batch[first : first + size]) for first in range(0, len(batch), size)]
        np.testing.assert_array_equal(np.concatenate(apart), together)


def test_single_pictures_do_not_depend_on_the_batch_either() -> None:
    batch = sample("fingerprint").reshape(80, 1, 32, 32)
    together = run("fingerprint")(batch)
    np.testing.assert_array_equal(np.concatenate([run("fingerprint")(batch[i : i + 1]) for i in range(80)]), together)


@pytest.mark.parametrize("module", [fingerprint, lanczos2x, shotchange])
def test_building_twice_gives_equal_bytes_and_their_hash(module: object) -> None:
    spec, body = module.build()  # type: ignore[attr-defined]
    assert (spec, body) == module.build()  # type: ignore[attr-defined]
    assert spec.sha256 == hashlib.sha256(body).hexdigest()
    assert builtin_model(spec.name) == (spec, body)
    assert builtin_model(f"{spec.name}@{spec.version}") == (spec, body)


@pytest.mark.parametrize("name", ["nonsense", "fingerprint@99", ""])
def test_unknown_model(name: str) -> None:
    with pytest.raises(ModelError, match=f"no model `{name}`: rigflow has fingerprint, lanczos2x, shotchange"):
        builtin_model(name)


# models of users


@pytest.fixture
def frames_model(tmp_path: Path) -> Path:
    """A model as frameworks export them: `image [batch, 3, 8, 12] float32` -> `features [batch, 3]`."""
    path = tmp_path / "colours.onnx"
    node = helper.make_node("ReduceMean", ["image"], ["features"], axes=[2, 3], keepdims=0)
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 12])
    made = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([node], "colours", [given], [made])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_model_without_a_card_describes_itself(frames_model: Path) -> None:
    spec, body = load_model(frames_model)
    assert spec == ModelSpec(
        name="colours",
        inputs=(TensorSpec(name="image", dtype="uint8", shape=("batch", 8, 12, 3), picture=PictureSpec(size=(8, 12))),),
        outputs=(TensorSpec(name="features", dtype="float32", shape=("batch", 3)),),
        sha256=hashlib.sha256(body).hexdigest(),
    )


def test_a_card_adds_what_the_graph_does_not_know(frames_model: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text('name = "mean-colour"\nversion = "3"\ndescription = "three numbers"\n')
    spec, _ = load_model(frames_model, card)
    assert (spec.name, spec.version, spec.description) == ("mean-colour", "3", "three numbers")
    assert spec.inputs[0].name == "image"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name =", "not TOML"),
        ("colour = 1", "colour: unknown field"),
        ("name = 3", "name: should be a valid string"),
        ('name = "../../evil"', "name: takes letters, digits, . - and _, at most 128"),
        ('name = "/abs"', "name: takes letters, digits, . - and _, at most 128"),
        ('version = "../x"', "version: takes letters, digits"),
        ('sha256 = "00"', "is not the file its model card"),
        ('inputs = [{ name = "image", dtype = "uint8", shape = ["N", 3, 8, 12] }]', "its model card says uint8"),
        ('outputs = [{ name = "z", dtype = "float32", shape = ["N"] }]', "has no output `z`, only `features`"),
    ],
)
def test_a_bad_card_is_one_line(frames_model: Path, tmp_path: Path, text: str, words: str) -> None:
    card = tmp_path / "card.toml"
    card.write_text(text)
    with pytest.raises(ModelError, match=re.escape(words)) as caught:
        load_model(frames_model, card)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_model_that_ends_the_process_that_loads_it_is_one_line(
    frames_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime dies of a few graphs, other ones in each version: here its process ends by the same signal."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -SEGV $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ModelError, match=r"ends the process that loads it \(SIGSEGV\)") as caught:
        load_model(frames_model)
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_model_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="Is a directory"):
        load_model(tmp_path)
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ModelError, match="is not an ONNX file"):
        load_model(tmp_path / "text.onnx")


# pipelines and models


def pipeline(stages: str, size: str = "size = [8, 12]", window: int = 1) -> PipelineSpec:
    return parse_pipeline(pipeline_text(stages, size, window), "p.toml")


def pipeline_text(stages: str, size: str = "size = [8, 12]", window: int = 1) -> str:
    return f"""
name = "p"
[[stage]]
kind = "decode"
window = {{ frames = {window} }}
[[stage]]
kind = "resize"
{size}
{stages}
[[stage]]
kind = "encode"
format = "npz"
"""


INFER = '[[stage]]\nkind = "infer"\n'


def one_to_one(shape: tuple[int | str, ...], dtype: str = "uint8", name: str = "pixels", out: str = "y") -> ModelSpec:
    return ModelSpec(
        name="m",
        inputs=(TensorSpec(name=name, dtype=dtype, shape=shape),),
        outputs=(TensorSpec(name=out, dtype="float32", shape=("N", 4)),),
        sha256="",
    )


@pytest.mark.parametrize("name", ["fingerprint", "scenes", "upscale2x"])
def test_the_pipelines_of_rigflow_fit_their_models(name: str) -> None:
    spec = parse_pipeline((files("pipelines") / "definitions" / f"{name}.toml").read_text(), name)
    plan_pipeline(spec, {stage.model: builtin_model(stage.model)[0] for stage in spec.operators if stage.model})


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        (("N", 8, 12, 3), 1),
        (("N", "H", "W", 3), 1),
        ((1, 8, 12, 3), 1),
        (("N", 4, 8, 12, 3), 4),
        (("N", "T", 8, 12, 3), 4),
    ],
)
def test_fits(shape: tuple[int | str, ...], window: int) -> None:
    plan_pipeline(pipeline(INFER + 'model = "m"', window=window), {"m": one_to_one(shape)})


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (one_to_one(("N", 8, 13, 3)), "wants `pixels` as uint8 [N, 8, 13, 3], and `pixels` is uint8 [F, 8, 12, 3]"),
        (one_to_one(("N", 3, 8, 12), "float32"), "wants `pixels` as float32 [N, 3, 8, 12]"),
        (one_to_one(("N", 5, 8, 12, 3)), "and `pixels` is uint8 [W, 2, 8, 12, 3]"),
        (one_to_one(("N", 8, 12)), "wants `pixels` as uint8 [N, 8, 12]"),
        (one_to_one(()), "wants `pixels` as uint8 []"),
        (one_to_one((8, 8, 12, 3)), "has no free batch"),
        (one_to_one(("N", 8, 12, 3), out="pixels"), "output `pixels` bears the name of an array that decode made"),
    ],
)
def test_a_model_that_does_not_fit_is_one_line(model: ModelSpec, words: str) -> None:
    with pytest.raises(ModelError, match=re.escape(words)) as caught:
        plan_pipeline(pipeline(INFER + 'model = "m"', window=2), {"m": model})
    assert "\n" not in str(caught.value)
    assert "`m`" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ('reads = { x = "pixels" }', "model `m` has no input `x`, only `pixels`"),
        ('reads = { pixels = "faces" }', "wants array `faces`, and there is only `index`, `pixels`"),
        ('keeps = ["plane0"]', "wants array `plane0`"),
        ('each = ["plane0"]', "wants array `plane0`"),
    ],
)
def test_a_stage_that_names_what_is_not_there_is_one_line(stage: str, words: str) -> None:
    with pytest.raises(PipelineError, match=re.escape(words)) as caught:
        plan_pipeline(pipeline(f'{INFER}model = "m"\n{stage}'), {"m": one_to_one(("N", 8, 12, 3))})
    assert "\n" not in str(caught.value)


ENCODES = [
    ("y", "", 'format = "npz"', 1, ""),
    ("times", "", 'format = "npz"', 1, "output `times`: the format needs that name for itself: rename the output"),
    ("file", "", 'format = "npz"', 1, "output `file`: the format needs that name for itself"),
    ("time", "", 'format = "jsonl"', 1, "output `time`: the format needs that name for itself"),
    ("times", "", 'format = "jsonl"', 1, ""),
    ("y", "", 'format = "npz"', 4, "output `y` has a row a frame, and a window is several frames"),
    ("y", "", 'format = "video"', 1, "format video needs `plane0` or `pixels`, the part holds `y`: add `keeps`"),
    ("y", 'keeps = ["pixels"]', 'format = "video"', 4, ""),
    ("y", 'keeps = ["pixels", "index"]', 'format = "shots"', 2, "format shots needs `score`"),
    ("score", 'keeps = ["pixels", "index"]', 'format = "shots"', 2, "`score` is float32 [F, 4]: format shots takes"),
    (
        "score",
        'keeps = ["pixels", "index"]',
        'format = "shots"',
        2,
        "`score` is float32 [F, 4]: format shots takes one",
    ),
    ("y", "", 'format = "npz"\noptions = { nosuch = 1 }', 1, "format npz has no option `nosuch`"),
]


@pytest.mark.parametrize(("out", "infer", "encode", "window", "words"), ENCODES)
def test_what_the_encode_stage_would_refuse_of_every_part(
    out: str, infer: str, encode: str, window: int, words: str
) -> None:
    text = pipeline_text(f'{INFER}model = "m"\n{infer}', window=window).replace('format = "npz"', encode)
    models = {"m": one_to_one(("N", 8, 12, 3), out=out)}
    if not words:
        plan_pipeline(parse_pipeline(text, "p.toml"), models)
        return
    with pytest.raises(PipelineError, match=f"^stage `?encode`?: {re.escape(words)}") as caught:
        plan_pipeline(parse_pipeline(text, "p.toml"), models)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("window", "layout", "sheet", "words"),
    [
        (2, "rgb", "true", ""),
        (1, "rgb", "true", "format shots needs windows of two frames"),
        (2, "gray", "true", "`pixels` is uint8 [F, 8, 12]"),
        (1, "gray", "false", ""),
    ],
)
def test_shots_need_two_frames_in_colour_for_their_sheet(window: int, layout: str, sheet: str, words: str) -> None:
    text = pipeline_text(f'{INFER}model = "m"\nkeeps = ["pixels", "index"]', window=window)
    text = text.replace('format = "npz"', f'format = "shots"\noptions = {{ sheet = {sheet} }}')
    text = text.replace("size = [8, 12]", f'size = [8, 12]\nlayout = "{layout}"')
    shape = ("N", *((window,) if window > 1 else ()), 8, 12, *((3,) if layout == "rgb" else ()))
    model = one_to_one(shape, out="score")
    model = model.model_copy(update={"outputs": (model.outputs[0].model_copy(update={"shape": ("N",)}),)})
    if words:
        with pytest.raises(PipelineError, match=re.escape(words)):
            plan_pipeline(parse_pipeline(text, "p.toml"), {"m": model})
    else:
        plan_pipeline(parse_pipeline(text, "p.toml"), {"m": model})


@pytest.mark.parametrize(
    ("array", "dtype", "shape", "media", "words"),
    [
        ("pixels", "uint8", ("N", 8, 12, 3), '["video", "image"]', ""),
        ("pixels", "uint8", ("N", 8, 12), '["video", "image"]', ""),
        ("pixels", "uint8", ("N", "H", "W", "C"), '["video", "image"]', ""),
        ("pixels", "float32", ("N", 8, 12, 3), '"video"', "`pixels` is float32: format video takes uint8"),
        ("pixels", "uint8", ("N", 8, 12, 1), '"image"', ""),
        (
            "pixels",
            "uint8",
            ("N", 8, 12, 1),
            '["video", "image"]',
            "of video, format video takes [F, H, W] and [F, H, W, 3]",
        ),
        ("pixels", "uint8", ("N", 8, 12, 5), '"image"', "of image, format video takes [F, H, W] and [F, H, W, 1 to 4]"),
        ("pixels", "uint8", ("N", 3, 8, 12), '"video"', "`pixels` is uint8 [N, 3, 8, 12]"),
        ("pixels", "uint8", ("N", 96), '"video"', "`pixels` is uint8 [N, 96]"),
        ("plane0", "uint8", ("N", 8, 12, 3), '"video"', "of video, format video takes [F, H, W]"),
    ],
)
def test_pictures_that_no_video_or_image_can_be_made_of(
    array: str, dtype: str, shape: tuple[int | str, ...], media: str, words: str
) -> None:
    size = "size = [8, 12]" if array == "pixels" else 'layout = "planes"'
    text = pipeline_text(f'{INFER}model = "m"\neach = ["{array}"]', size=size)
    text = text.replace('format = "npz"', 'format = "video"').replace('name = "p"', f'name = "p"\nmedia = {media}', 1)
    seen = ("N", 8, 12, 3) if array == "pixels" else ("N", "H", "W")
    model = one_to_one(seen).model_copy(update={"outputs": (TensorSpec(name="y", dtype=dtype, shape=shape),)})
    if words:
        with pytest.raises(PipelineError, match=re.escape(words)):
            plan_pipeline(parse_pipeline(text, "p.toml"), {"m": model})
    else:
        plan_pipeline(parse_pipeline(text, "p.toml"), {"m": model})


def test_frames_alone_are_nothing_to_write() -> None:
    with pytest.raises(PipelineError, match="stage `encode`: the part holds frames and no output of a model"):
        plan_pipeline(pipeline(""), {})


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ModelError, match="stage `infer`: no model `m`, there is none"):
        plan_pipeline(pipeline(INFER + 'model = "m"'), {})


def test_the_second_model_sees_what_the_first_one_left() -> None:
    first, second = one_to_one(("N", 8, 12, 3)), one_to_one(("N", 4), "float32", "x")
    stages = '{0}model = "a"\n{0}name = "second"\nmodel = "b"\nreads = {{ x = "{1}" }}'
    plan_pipeline(pipeline(stages.format(INFER, "y")), {"a": first, "b": second})
    with pytest.raises(PipelineError, match="stage `second` wants array `pixels`, and there is only `y`"):
        plan_pipeline(pipeline(stages.format(INFER, "pixels")), {"a": first, "b": second})
    wrong = one_to_one(("N", 5), "float32", "x")
    with pytest.raises(ModelError, match=re.escape("as float32 [N, 5], and `y` is float32 [W, 4]")):
        plan_pipeline(pipeline(stages.format(INFER, "y")), {"a": first, "b": wrong})


def test_each_needs_a_model_of_one_input_and_one_output() -> None:
    plane = TensorSpec(name="a", dtype="uint8", shape=("N", "H", "W"))
    model = ModelSpec(name="m", inputs=(plane, plane.model_copy(update={"name": "b"})), outputs=(), sha256="")
    stage = INFER + 'model = "m"\neach = ["plane0"]'
    with pytest.raises(ModelError, match="`each` needs a model of one input and one output"):
        plan_pipeline(pipeline(stage, size='layout = "planes"'), {"m": model})
