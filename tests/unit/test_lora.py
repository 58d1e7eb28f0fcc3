"""LoRAs that are merged into a tiny Stable Diffusion: their names, formulas and files, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from engines.content import ModelFiles
from engines.diffusion.drawing import Drawing
from engines.diffusion.folder import file_of
from engines.diffusion.session import DiffusionSession
from engines.models import folders
from engines.models.diffusion_folder import DiffusionFolder
from engines.models.files import NewFiles
from engines.models.folder_kinds import take_folder
from engines.models.lora import file_and_strength, read_lora
from engines.models.lora_merge import with_loras
from engines.models.store import Found, find
from engines.part import no_tick
from schemas.errors import ModelError, UsageError
from schemas.model import ModelCard
from tests.lora_files import lora_of, write_safetensors
from tests.stable import stable_folder, text_encoder, unet

TO_K, CONV = "down_blocks.0.attentions.0.to_k", "down_blocks.0.resnets.0.conv1"
UNET = {"lora_unet_" + TO_K.replace(".", "_"): (4, 8), "lora_unet_" + CONV.replace(".", "_"): (4, 4, 3, 3)}


def named(model: onnx.ModelProto, *modules: str, scopes: bool = False) -> onnx.ModelProto:
    """The first nodes with weights get the names that PyTorch's exporters give them."""
    stored = {each.name for each in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in ("MatMul", "Conv") and node.input[1] in stored]
    for node, module in zip(nodes, modules, strict=False):
        if scopes:
            value = str(["", "inner", f"inner.{module}", "linear"])
            node.metadata_props.append(onnx.StringStringEntryProto(key="pkg.torch.onnx.name_scopes", value=value))
        else:
            node.name = f"/inner/{module.replace('.attentions', '/attentions').replace('.to', '/to')}/{node.op_type}"
    return model


class Case:
    """A folder, and models that are made of it."""

    def __init__(self, tmp_path: Path, **graphs: Any) -> None:
        self.path = tmp_path
        graphs = {"unet": named(unet(), CONV, TO_K), **graphs}
        self.folder = stable_folder(tmp_path / "m", graphs=graphs, external=True)
        self.kind = DiffusionFolder()

    def merged(self, *loras: str) -> tuple[ModelFiles, dict[str, str]]:
        with NewFiles(self.path / "store", lambda: None) as new:
            taken = take_folder(self.folder, self.kind, new)
            found, fields = with_loras(Found(self.folder / self.kind.main, "m", taken), loras, new)
            assert isinstance(found.content, ModelFiles)
            return found.content, fields

    def plain(self) -> ModelFiles:
        with NewFiles(self.path / "store", lambda: None) as new:
            content = take_folder(self.folder, self.kind, new).content
        assert isinstance(content, ModelFiles)
        return content

    def drawn(self, content: ModelFiles) -> Any:
        card = ModelCard(name="m", sha256="0" * 64, backend="diffusion", files=content.files)
        session = DiffusionSession(content, self.kind.spec(card, content), 1 << 20)
        return session.draw(Drawing("a cat", steps=2, seed=1), no_tick)[0]


def weights(content: ModelFiles, network: str = "unet") -> dict[str, Any]:
    """The weights that nodes read, as they read them, by kind of node and place."""
    model = onnx.load_from_string(file_of(content, f"{network}.model.onnx") or b"")
    stored = {}
    for tensor in model.graph.initializer:
        if tensor.external_data:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(content.folder))
        stored[tensor.name] = numpy_helper.to_array(tensor)
    read = [(node, name) for node in model.graph.node for name in node.input if name in stored]
    assert {name for _, name in read} == set(stored), "no weight is left that nothing reads"
    return {f"{node.op_type}{number}": stored[name] for number, (node, name) in enumerate(read)}


@pytest.mark.parametrize("small", [100, 1024], ids=["outside", "inside"])
@pytest.mark.parametrize("scopes", [False, True], ids=["names", "scopes"])
def test_the_weights_are_those_of_the_formula(
    small: int, scopes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_SMALL_BYTES", small)
    case = Case(tmp_path, unet=named(unet(), CONV, TO_K, scopes=scopes))
    arrays = lora_of(UNET, alpha=3.0)
    lora = write_safetensors(tmp_path / "style.safetensors", arrays)
    content, fields = case.merged(f"{lora}:0.5")
    before, after = weights(case.plain()), weights(content)
    changed = sorted(name for name in before if not np.array_equal(before[name], after[name]))
    assert [name.rstrip("0123456789") for name in changed] == ["Conv", "MatMul"]
    for name, module in zip(changed, sorted(UNET, key=lambda each: "conv" not in each), strict=True):
        up, down = (arrays[f"{module}.lora_{half}.weight"] for half in ("up", "down"))
        delta = 0.5 * 3.0 / 2 * (up.reshape(4, 2) @ down.reshape(2, -1))
        delta = delta.T if name.startswith("MatMul") else delta.reshape(before[name].shape)
        assert np.allclose(after[name] - before[name], delta, atol=1e-5)
    assert fields["name"] == "m-style"
    assert fields["description"].endswith("scheduler pndm; with LoRA style at 0.5")
    assert any(file.name == "unet.lora.weights" for file in content.files) == (small == 100)
    assert not np.array_equal(case.drawn(case.plain()), case.drawn(content))
    again, _ = case.merged(f"{lora}:0.5")
    assert again.files == content.files, "equal bytes"


def test_forms_of_names_and_types_give_the_same_model(tmp_path: Path) -> None:
    """Those of kohya and of diffusers, old and new, with alpha in the metadata; bfloat16 is read."""
    case = Case(tmp_path)
    kohya = lora_of({name: shape for name, shape in UNET.items() if "to_k" in name}, alpha=4.0)
    down, up, _ = kohya.values()
    down, up = (np.round(each * 4) / 4 for each in (down, up))  # exact in few bits
    halves = [(each.view(np.uint32) >> 16).astype(np.uint16) for each in (down, up)]
    alpha = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 4, "unet.r": 2, "text_encoder.lora_alpha": 9})}
    pattern = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 1, "unet.alpha_pattern": {"to_k": 4}})}
    name = next(iter(kohya)).removesuffix(".lora_down.weight")
    forms: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": np.float32(4)}, {}),
        ({f"unet.{TO_K}.lora_A.weight": down, f"unet.{TO_K}.lora_B.weight": up}, alpha),
        ({f"unet.{TO_K}.lora_A.weight": down, f"unet.{TO_K}.lora_B.weight": up}, pattern),
        ({f"unet.{TO_K}.lora.down.weight": down * 2, f"unet.{TO_K}.lora.up.weight": up}, {}),
        (dict(zip([f"{TO_K}.lora.{each}.weight" for each in ("down", "up")], (down * 2, up), strict=True)), {}),
        (dict(zip([f"unet.{TO_K}.lora_{each}.weight" for each in "AB"], halves, strict=True)), alpha),
    ]
    made = []
    for number, (arrays, metadata) in enumerate(forms):
        made.append(case.merged(str(write_safetensors(tmp_path / f"{number}.safetensors", arrays, metadata)))[0])
    first = weights(made[0])
    for other in made[1:]:
        for each, array in weights(other).items():
            assert np.array_equal(array, first[each])
    old = f"unet.{TO_K.replace('.to_k', '.processor.to_k_lora')}"
    path = write_safetensors(tmp_path / "old.safetensors", {f"{old}.down.weight": down, f"{old}.up.weight": up})
    assert [change.module for change in read_lora(path, 1.0)] == [TO_K.replace(".", "_")]


def test_names_of_stability_are_those_of_diffusers(tmp_path: Path) -> None:
    expected = {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k": (
            "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_k"
        ),
        "lora_unet_input_blocks_8_0_in_layers_2": "down_blocks_2_resnets_1_conv1",
        "lora_unet_input_blocks_3_0_op": "down_blocks_0_downsamplers_0_conv",
        "lora_unet_middle_block_1_proj_in": "mid_block_attentions_0_proj_in",
        "lora_unet_output_blocks_5_2_conv": "up_blocks_1_upsamplers_0_conv",
        "lora_unet_output_blocks_5_1_proj_out": "up_blocks_1_attentions_2_proj_out",
        "lora_unet_output_blocks_0_0_skip_connection": "up_blocks_0_resnets_0_conv_shortcut",
        "lora_unet_time_embed_2": "time_embedding_linear_2",
        "lora_te1_text_model_encoder_layers_3_mlp_fc1": "encoder_layers_3_mlp_fc1",
        "lora_te2_text_model_encoder_layers_3_mlp_fc1": "encoder_layers_3_mlp_fc1",
    }
    path = write_safetensors(tmp_path / "xl.safetensors", lora_of(dict.fromkeys(expected, (4, 8))))
    found = read_lora(path, 1.0)
    assert {change.module for change in found} == set(expected.values())
    assert sorted({change.network for change in found}) == ["text_encoder", "text_encoder_2", "unet"]


def test_several_loras_and_text_encoders(tmp_path: Path) -> None:
    module = "text_model.encoder.layers.0.mlp.fc1"
    case = Case(tmp_path, text_encoder=named(text_encoder(blocks=2), "pooler", module))
    first = write_safetensors(tmp_path / "a.safetensors", lora_of(UNET))
    text = {"lora_te_" + module.replace(".", "_"): (8, 8)}
    second = write_safetensors(tmp_path / "b.safetensors", lora_of({**UNET, **text}, seed=1))
    content, fields = case.merged(f"{first}:0.8", f"{second}:-0.25")
    assert fields["description"].endswith("with LoRA a at 0.8, b at -0.25")
    before, after = (weights(each, "text_encoder") for each in (case.plain(), content))
    assert sum(not np.array_equal(before[name], after[name]) for name in before) == 1
    twice, _ = case.merged(f"{second}:-0.25", f"{first}:0.8")
    for name, array in weights(twice).items():
        assert np.allclose(array, weights(content)[name], atol=1e-5)


def test_equal_weights_that_are_stored_once_are_changed_apart(tmp_path: Path) -> None:
    made = unet()
    conv = next(node for node in made.graph.node if node.op_type == "Conv")
    index = list(made.graph.node).index(conv)
    copied = helper.make_node("Identity", [conv.input[1]], ["same"])
    second = helper.make_node("Conv", [conv.output[0], "same"], ["twice"], pads=[1, 1, 1, 1], name="/inner/other/Conv")
    for node in made.graph.node:
        node.input[:] = ["twice" if each == conv.output[0] else each for each in node.input]
    made.graph.node.insert(index + 1, copied)
    made.graph.node.insert(index + 2, second)
    case = Case(tmp_path, unet=named(made, CONV))
    lora = write_safetensors(tmp_path / "a.safetensors", lora_of({"lora_unet_other": (4, 4, 3, 3)}))
    before, after = weights(case.plain()), weights(case.merged(str(lora))[0])
    assert [np.array_equal(a, b) for a, b in zip(before.values(), after.values(), strict=True)][:2] == [True, False]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        (lora_of({"lora_unet_mid_block_to_k": (4, 8)}), "unet mid_block_to_k, which is not there (0 of 1 weights"),
        (lora_of({**UNET, "lora_unet_other": (4, 8)}), "unet other, which is not there (2 of 3 weights"),
        (lora_of({next(iter(UNET)): (4, 9)}), "attentions_0_to_k is 4x8 here, and 4x9 there"),
        (lora_of({"lora_te2_x": (4, 8)}), "changes the text_encoder_2, which the model does not have"),
        ({"model.diffusion_model.x.weight": np.zeros((4, 4), np.float32)}, "is no weight of a LoRA of Stable Diff"),
        ({"lora_unet_x.hada_w1_a": np.zeros((4, 4), np.float32)}, "another kind of LoRA (LoHa"),
        ({"lora_unet_x.lora_up.weight": np.zeros((4, 2), np.float32)}, "of x a half is missing"),
        ({**lora_of(UNET), f"{next(iter(UNET))}.lora_up.weight": np.zeros((4, 3), np.float32)}, "do not fit"),
        ({**lora_of(UNET), f"{next(iter(UNET))}.alpha": np.zeros(3, np.float32)}, "alpha is no number"),
        ({f"{next(iter(UNET))}.lora_up.weight": np.zeros((4, 2), np.int8)}, "has the type I8"),
        ({**lora_of(UNET), f"{next(iter(UNET))}.alpha": np.float32(np.inf)}, "becomes a number that is none"),
        ({}, "has no weights of a LoRA"),
    ],
    ids=lambda given: given[:20] if isinstance(given, str) else "",
)
def test_what_does_not_fit_is_refused_in_a_line(arrays: Any, text: str, tmp_path: Path) -> None:
    case = Case(tmp_path)
    path = write_safetensors(tmp_path / "x.safetensors", arrays)
    with pytest.raises(ModelError) as raised, np.errstate(all="ignore"):
        case.merged(str(path))
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_model_by_itself_is_named(tmp_path: Path) -> None:
    lora = write_safetensors(tmp_path / "style.safetensors", lora_of(UNET))
    refused = pytest.raises(
        ModelError, match=r"is a LoRA: give it with its model: `rigflow model add FOLDER --lora .*`"
    )
    with NewFiles(tmp_path / "store", lambda: None) as new, refused:
        find(lora, new)


def test_damaged_files_are_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    cases: list[tuple[bytes, str]] = [
        (b"PK\x03\x04" + bytes(100), "is a pickle, which may run a program: get it as .safetensors"),
        (b"\x80\x02}q\x00." + bytes(100), "is a pickle"),
        (b"", "is no safetensors file"),
        (b"<!DOCTYPE html>", "is no safetensors file"),
        ((2).to_bytes(8, "little") + b"[]", "its header is no JSON object"),
        ((3).to_bytes(8, "little") + b"{{{", "its header is no JSON"),
        ((20).to_bytes(8, "little") + b'{"unet.x.alpha": 12}', "its header does not describe unet.x.alpha"),
    ]
    odd: list[tuple[dict[str, Any], str]] = [
        ({"dtype": "F32", "shape": [1e999], "data_offsets": [0, 4]}, "does not describe unet.x.alpha"),
        ({"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}, "has the type ['F32']"),
        ({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}, "does not lie in the file"),
        ({"dtype": "F32", "shape": [1 << 70], "data_offsets": [0, 1 << 72]}, "does not lie in the file"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}, "does not lie in the file"),
    ]
    for described, text in odd:
        header = json.dumps({"unet.x.alpha": described}).encode()
        cases.append((len(header).to_bytes(8, "little") + header + bytes(4), text))
    for body, text in cases:
        path.write_bytes(body)
        with pytest.raises(ModelError) as raised:
            read_lora(path, 1.0)
        assert text in str(raised.value)
    write_safetensors(path, lora_of(UNET))
    _cut(path)
    with pytest.raises(ModelError, match="does not lie in the file"):
        read_lora(path, 1.0)
    with pytest.raises(ModelError, match="No such file"):
        read_lora(tmp_path / "none", 1.0)
    assert file_and_strength("a:b.safetensors") == (Path("a:b.safetensors"), 1.0)
    with pytest.raises(ModelError, match="no number up to 100"):
        file_and_strength("a.safetensors:nan")
    with pytest.raises(UsageError, match="m is no Stable Diffusion"), NewFiles(tmp_path, lambda: None) as new:
        with_loras(Found(path, "m", folders.Taken(b"")), ["x"], new)
