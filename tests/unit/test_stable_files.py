"""Stable Diffusions of PyTorch are recognised by names and shapes, and others refused in a line; without PyTorch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.models import stable_files
from engines.models.files import NewFiles
from engines.models.stable_files import exported
from engines.models.stable_shapes import single_file
from schemas.errors import ModelError
from tests.lora_files import write_safetensors

UNET, VAE = "model.diffusion_model.", "first_stage_model."


def shapes(xl: bool = False) -> dict[str, tuple[int, ...]]:
    """The tensors that say the sizes: two levels of 32 and 64 channels, of which the second reads text."""
    text = "conditioner.embedders.0.transformer." if xl else "cond_stage_model.transformer."
    made = {f"{UNET}input_blocks.0.0.weight": (32, 4, 3, 3), f"{UNET}out.2.weight": (4, 32, 3, 3)}
    for number, width in {1: 32, 2: 32, 4: 64, 5: 64}.items():
        made[f"{UNET}input_blocks.{number}.0.out_layers.3.weight"] = (width, width, 3, 3)
        if width == 64:
            block = f"{UNET}input_blocks.{number}.1."
            made[f"{block}proj_in.weight"] = (64, 64) if xl else (64, 64, 1, 1)
            made[f"{block}transformer_blocks.0.attn2.to_k.weight"] = (64, 128 if xl else 96)
    made[f"{UNET}input_blocks.3.0.op.weight"] = (32, 32, 3, 3)
    for level, width in enumerate((16, 48, 48)):
        made[f"{VAE}encoder.down.{level}.block.0.conv2.weight"] = (width, width, 3, 3)
        made[f"{VAE}encoder.down.{level}.block.1.conv2.weight"] = (width, width, 3, 3)
    made[f"{VAE}post_quant_conv.weight"] = (4, 4, 1, 1)
    made[f"{text}text_model.embeddings.token_embedding.weight"] = (49408, 128 if xl else 96)
    made[f"{text}text_model.encoder.layers.11.mlp.fc1.weight"] = (384, 96)
    made[f"{text}text_model.encoder.layers.0.mlp.fc1.weight"] = (384, 96)
    if xl:
        made[f"{UNET}label_emb.0.0.weight"] = (128, 256 + 6 * 256)
        other = "conditioner.embedders.1.model."
        made[f"{other}token_embedding.weight"] = (49408, 192)
        made[f"{other}transformer.resblocks.0.mlp.c_fc.weight"] = (768, 192)
        made[f"{other}transformer.resblocks.31.mlp.c_fc.weight"] = (768, 192)
        made[f"{other}text_projection"] = (192, 256)
    return made


def written(path: Path, given: dict[str, tuple[int, ...]]) -> Path:
    """A file with tensors of these names and shapes, of zeros."""
    return write_safetensors(path, {name: np.zeros(shape, np.float16) for name, shape in given.items()})


def test_version_1_is_read_from_its_shapes() -> None:
    found = single_file(shapes(), "x")
    unet, vae, text = (found.networks[name] for name in ("unet", "vae", "text_encoder"))
    assert (found.version, found.v_prediction, found.zero_snr) == ("1", False, False)
    assert unet["block_out_channels"] == [32, 64]
    assert unet["layers_per_block"] == 2
    assert unet["down_block_types"] == ["DownBlock2D", "CrossAttnDownBlock2D"]
    assert unet["up_block_types"] == ["CrossAttnUpBlock2D", "UpBlock2D"]
    assert (unet["cross_attention_dim"], unet["attention_head_dim"], unet["use_linear_projection"]) == (96, 8, False)
    assert vae["block_out_channels"] == [16, 48, 48]
    assert (vae["layers_per_block"], vae["scaling_factor"]) == (2, 0.18215)
    assert (text["num_hidden_layers"], text["hidden_act"], text["eos_token_id"]) == (12, "quick_gelu", 49407)


def test_xl_is_read_from_its_shapes() -> None:
    found = single_file({**shapes(xl=True), "v_pred": (), "ztsnr": ()}, "x")
    unet, second = found.networks["unet"], found.networks["text_encoder_2"]
    assert (found.version, found.v_prediction, found.zero_snr) == ("xl", True, True)
    assert (unet["addition_embed_type"], unet["addition_time_embed_dim"]) == ("text_time", 256)
    assert (unet["attention_head_dim"], unet["use_linear_projection"]) == ([1, 1], True)
    assert (second["num_hidden_layers"], second["projection_dim"], second["num_attention_heads"]) == (32, 256, 3)


@pytest.mark.parametrize(
    "name",
    [
        f"{UNET}input_blocks.0.0.weight",
        f"{UNET}out.2.weight",
        f"{UNET}input_blocks.1.0.out_layers.3.weight",
        f"{UNET}input_blocks.5.1.proj_in.weight",
        f"{VAE}encoder.down.1.block.0.conv2.weight",
        f"{VAE}post_quant_conv.weight",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
    ],
)
def test_a_file_that_lacks_a_tensor_is_refused_in_a_line(name: str) -> None:
    given = {key: shape for key, shape in shapes().items() if key != name}
    with pytest.raises(ModelError, match=r"x\.safetensors lacks ") as raised:
        single_file(given, "x.safetensors")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"model.diffusion_model.double_blocks.0.img_mod.lin.weight": (1,)}, "is a Flux"),
        ({"model.diffusion_model.joint_blocks.0.x_block.attn.proj.weight": (1,)}, "is a Stable Diffusion 3"),
        ({"conditioner.embedders.0.model.ln_final.weight": (1,)}, "is a refiner of XL"),
        ({f"{UNET}input_blocks.0.0.weight": (32, 9, 3, 3)}, "takes 9 channels: it inpaints"),
    ],
)
def test_other_networks_are_refused_in_a_line(more: Any, words: str, tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors", {**shapes(), **more})
    with NewFiles(tmp_path / "store", lambda: None) as new, pytest.raises(ModelError, match=words) as raised:
        exported(path, new)
    assert "\n" not in str(raised.value)


def test_other_files_and_folders_are_left_to_others(tmp_path: Path) -> None:
    esrgan = write_safetensors(tmp_path / "x.safetensors", {"conv_first.weight": np.zeros((1, 3), np.float32)})
    with NewFiles(tmp_path / "store", lambda: None) as new:
        assert exported(esrgan, new) is None
        assert exported(tmp_path, new) is None
        assert exported(tmp_path / "x.onnx", new) is None


@pytest.mark.parametrize(
    ("kind", "file", "words"),
    [
        ("FluxPipeline", "diffusion_pytorch_model.safetensors", "is a FluxPipeline, which rigflow does not run"),
        ("StableDiffusionPipeline", "diffusion_pytorch_model.bin", "has pickles, which may run a program"),
        ("StableDiffusionPipeline", "diffusion_pytorch_model.safetensors", "has no weights"),
    ],
)
def test_folders_of_other_kinds_are_refused_in_a_line(kind: str, file: str, words: str, tmp_path: Path) -> None:
    for name in ("text_encoder", "unet", "vae"):
        (tmp_path / name).mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    if file.endswith(".bin"):
        (tmp_path / "text_encoder" / file).write_bytes(b"\x80\x02")
    write_safetensors(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", {"a": np.zeros(3, np.float32)})
    with NewFiles(tmp_path / "store", lambda: None) as new, pytest.raises(ModelError, match=words) as raised:
        exported(tmp_path, new)
    assert "\n" not in str(raised.value)


def test_a_file_without_a_tokenizer_says_where_it_may_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stable_files, "find_spec", lambda _: None)
    path = written(tmp_path / "x.safetensors", shapes())
    with (
        NewFiles(tmp_path / "store", lambda: None) as new,
        pytest.raises(ModelError, match=r"has no tokenizer.*put CLIP's there"),
    ):
        exported(path, new)


def test_the_tokenizer_of_a_package_is_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an archive of the package's form: the vocabulary has bytes, bytes that end a word, merges, and two signs."""
    import gzip
    from types import SimpleNamespace

    from tests.clip_tokens import vocabulary

    merges = [(f"a{number}", f"b{number}") for number in range(49152 - 256 - 2)]
    lines = ["#version: 0.2", *(" ".join(each) for each in merges), "unused line"]
    (tmp_path / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(stable_files, "find_spec", lambda _: found)
    stable_files._write_tokenizer(tmp_path / "x.safetensors", tmp_path / "tokenizer", "!")
    read = json.loads((tmp_path / "tokenizer" / "vocab.json").read_text())
    assert read == vocabulary(merges)
    assert len(read) == 49408
    assert json.loads((tmp_path / "tokenizer" / "special_tokens_map.json").read_text())["pad_token"] == "!"
