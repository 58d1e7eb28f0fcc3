"""A tiny language model, as a folder of ONNX Runtime GenAI: random weights, a byte a token, one layer of attention.

What it writes is letters that depend on all that it was asked, and on every token before.
"""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEADS, WIDTH, VOCABULARY, CONTEXT = 2, 8, 259, 512  # bytes and three tokens of their own
END, USER, ASSISTANT = 256, 257, 258
_SPECIAL = ("<end>", "<user>", "<assistant>")
TEMPLATE = (
    "{% for message in messages %}<user>{{ message['role'] }}:{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def language_folder(folder: Path, template: str = TEMPLATE, positions: bool = False, ends: bool = True) -> Path:
    """Make the folder. With `positions` the graph has the input `position_ids`; without `ends` no answer ends early."""
    folder.mkdir(parents=True)
    onnx.save(_graph(positions, ends), folder / "model.onnx")
    (folder / "genai_config.json").write_text(json.dumps(config()))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    settings = {"tokenizer_class": "GPT2Tokenizer", "eos_token": _SPECIAL[0], "model_max_length": CONTEXT}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if template:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def config() -> dict[str, object]:
    """What `genai_config.json` says."""
    decoder = {
        "filename": "model.onnx",
        "session_options": {"provider_options": []},
        "head_size": WIDTH,
        "hidden_size": HEADS * WIDTH,
        "num_attention_heads": HEADS,
        "num_hidden_layers": 1,
        "num_key_value_heads": HEADS,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    model = {
        "type": "llama",
        "vocab_size": VOCABULARY,
        "context_length": CONTEXT,
        "bos_token_id": END,
        "eos_token_id": END,
        "pad_token_id": END,
        "decoder": decoder,
    }
    return {"model": model, "search": {"max_length": CONTEXT, "past_present_share_buffer": True}}


def _graph(positions: bool, ends: bool) -> onnx.ModelProto:
    """Embedding -> GroupQueryAttention -> logits. Weights are multiples of 1/8, so that sums have no rounding."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((rng.integers(-16, 17, shape) / 8).astype(np.float32), name)

    size = HEADS * WIDTH
    head = rng.integers(-16, 17, (size, VOCABULARY)) / 8
    head[:, [token for token in range(VOCABULARY) if not (97 <= token < 123 or token in (32, END))]] = 0
    head[:, END] *= ends
    initializers = [
        weight("places", CONTEXT, size),
        numpy_helper.from_array(head.astype(np.float32), "head"),
        weight("embedding", VOCABULARY, size),
        weight("query", size, size),
        weight("key", size, size),
        weight("value", size, size),
        numpy_helper.from_array(np.array(1, np.int64), "one"),
        numpy_helper.from_array(np.array(0, np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array([1 << 30], np.int64), "far"),
    ]
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["word"]),
        *([] if positions else _positions()),
        helper.make_node("Gather", ["places", "position_ids"], ["place"]),
        helper.make_node("Add", ["word", "place"], ["states"]),
        *(helper.make_node("MatMul", ["states", each], [f"{each}s"]) for each in ("query", "key", "value")),
        helper.make_node("ReduceSum", ["attention_mask", "axis"], ["length"], keepdims=0),
        helper.make_node("Sub", ["length", "one"], ["last"]),
        helper.make_node("Cast", ["last"], ["lengths"], to=TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["total"]),
        helper.make_node("Cast", ["total"], ["totals"], to=TensorProto.INT32),
        helper.make_node(
            "GroupQueryAttention",
            ["querys", "keys", "values", "past_key_values.0.key", "past_key_values.0.value", "lengths", "totals"],
            ["attended", "present.0.key", "present.0.value"],
            domain="com.microsoft",
            num_heads=HEADS,
            kv_num_heads=HEADS,
        ),
        helper.make_node("Add", ["states", "attended"], ["sum"]),
        helper.make_node("MatMul", ["sum", "head"], ["logits"]),
    ]
    floats, ids = TensorProto.FLOAT, TensorProto.INT64
    past = [
        helper.make_tensor_value_info(f"past_key_values.0.{each}", floats, ["B", HEADS, "P", WIDTH])
        for each in ("key", "value")
    ]
    present = [
        helper.make_tensor_value_info(f"present.0.{each}", floats, ["B", HEADS, "T", WIDTH])
        for each in ("key", "value")
    ]
    inputs = [
        helper.make_tensor_value_info("input_ids", ids, ["B", "S"]),
        helper.make_tensor_value_info("attention_mask", ids, ["B", "T"]),
        *([helper.make_tensor_value_info("position_ids", ids, ["B", "S"])] if positions else []),
        *past,
    ]
    outputs = [helper.make_tensor_value_info("logits", floats, ["B", "S", VOCABULARY]), *present]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _positions() -> list[onnx.NodeProto]:
    """Positions by the mask, for a graph that is not given them."""
    return [
        helper.make_node("CumSum", ["attention_mask", "one"], ["seen"]),
        helper.make_node("Sub", ["seen", "one"], ["every position"]),
        helper.make_node("Shape", ["input_ids"], ["ids"]),
        helper.make_node("Gather", ["ids", "axis"], ["count"]),
        helper.make_node("Neg", ["count"], ["first"]),
        helper.make_node("Slice", ["every position", "first", "far", "axis"], ["positions"]),
        helper.make_node("Max", ["positions", "zero"], ["position_ids"]),
    ]


def _tokenizer() -> dict[str, object]:
    """A tokenizer of bytes, without merges."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]  # as GPT-2 writes bytes as characters
    others = [each for each in range(256) if each not in shown]
    of_byte = {each: chr(each) for each in shown} | {each: chr(256 + at) for at, each in enumerate(others)}
    vocabulary = {of_byte[each]: each for each in range(256)} | {each: 256 + at for at, each in enumerate(_SPECIAL)}
    added = [
        {"id": 256 + at, "content": each, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": True}
        for at, each in enumerate(_SPECIAL)
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [], "byte_fallback": False}
    return {"version": "1.0", "added_tokens": added, "pre_tokenizer": level, "decoder": level, "model": model}
