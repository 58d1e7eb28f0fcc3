"""A transcript as a user writes it with ONNX Runtime alone: an encoder, a merged decoder, and a loop of beam search.

Keys and values stay on the device by IO binding; logits come to the host, where NumPy chooses the tokens. Rows of keys
and values are taken by a graph of Gather nodes, as the sessions of rigflow do. Where the decoder gives the attention by
which words are aligned, as `rigflow model add` makes it, tokens have times and probabilities.
"""

import json
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import helper

from engines.inference.whisper_decoder import ATTENTION
from engines.speech.alignment import path_of
from engines.speech.mel import features

RATE, CHUNK_S = 16_000, 28
_MOST = 224


class PlainWhisper:
    """`folder`: of optimum. `decoder`: in place of its `decoder_model_merged.onnx`. `device`: cpu, or cuda:N."""

    def __init__(
        self, folder: Path, device: str, threads: int, beam: int = 5, batch: int = 8, decoder: Path | None = None
    ) -> None:
        from tokenizers import Tokenizer

        self.beam, self.batch = beam, batch
        self.where, number = ("cpu", 0) if device == "cpu" else ("cuda", int(device.partition(":")[2] or 0))
        self.number = number
        if self.where == "cuda" and hasattr(ort, "preload_dlls"):
            ort.preload_dlls(directory="")
        self.options = ort.SessionOptions()
        self.options.intra_op_num_threads = threads
        cuda = ("CUDAExecutionProvider", {"device_id": number, "cudnn_conv_algo_search": "HEURISTIC"})
        self.providers = ["CPUExecutionProvider"] if device == "cpu" else [cuda, "CPUExecutionProvider"]
        graphs = next(each for each in (folder, folder / "onnx") if (each / "encoder_model.onnx").is_file())
        self.encoder = self.session(str(graphs / "encoder_model.onnx"))
        self.decoder = self.session(str(decoder or graphs / "decoder_model_merged.onnx"))
        self.attentions = [each.name for each in self.decoder.get_outputs() if each.name.startswith(ATTENTION)]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = json.loads((folder / "config.json").read_text())
        self.bands, self.vocabulary = config["num_mel_bins"], config["vocab_size"]
        self.past = {each.name: each for each in self.decoder.get_inputs() if each.name.startswith("past")}
        self.element = 10 if "float16" in next(iter(self.past.values())).type else 1
        self.dtype = np.float16 if self.element == 10 else np.float32
        names = [str(number) for number in range(len(self.past) // 2)]
        values = [helper.make_tensor_value_info(name, self.element, [None] * 4) for name in names]
        taken = [helper.make_tensor_value_info(f"t{name}", self.element, [None] * 4) for name in names]
        nodes = [helper.make_node("Gather", [name, "rows"], [f"t{name}"]) for name in names]
        graph = helper.make_graph(nodes, "g", [*values, helper.make_tensor_value_info("rows", 7, [None])], taken)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        self.rows = self.session(model.SerializeToString())
        special = ["startoftranscript", *(["en", "transcribe"] if self.vocabulary >= 51_865 else []), "notimestamps"]
        self.prompt = [self.tokenizer.token_to_id(f"<|{name}|>") for name in special]
        self.end = self.tokenizer.token_to_id("<|endoftext|>")
        self.first_mask = np.zeros(self.vocabulary, np.float32)
        self.first_mask[[self.end, self.tokenizer.encode(" ", add_special_tokens=False).ids[0]]] = -np.inf
        self.aligned: list[tuple[Any, Any]] = []  # probabilities of tokens, and their path through the sound
        self.steps: list[tuple[int, int]] = []  # chunks and steps of each batch

    def session(self, model: Any) -> Any:
        return ort.InferenceSession(model, self.options, providers=self.providers)

    def run(self, session: Any, inputs: dict[str, Any], outputs: Sequence[str], host: Sequence[str] = ()) -> list[Any]:
        """Outputs of a session, on the device except those of `host`."""
        binding = session.io_binding()
        for name, given in inputs.items():
            if isinstance(given, np.ndarray):
                binding.bind_cpu_input(name, given)
            else:
                binding.bind_ortvalue_input(name, given)
        for name in outputs:
            binding.bind_output(name, "cpu" if name in host else self.where, 0 if name in host else self.number)
        session.run_with_iobinding(binding)
        return list(binding.get_outputs())

    def take(self, values: Sequence[Any], rows: Any) -> list[Any]:
        """Rows of keys and values."""
        given = {str(number): value for number, value in enumerate(values)}
        return self.run(self.rows, given | {"rows": rows}, [f"t{number}" for number in range(len(values))])

    def step(self, tokens: Any, states: Any, past: dict[str, Any], names: Sequence[str], used: bool) -> list[Any]:
        """Logits on the host, and keys and values."""
        given = {"input_ids": tokens, "encoder_hidden_states": states, "use_cache_branch": np.array([used]), **past}
        outputs = ["logits", *(name.replace("past_key_values", "present") for name in names)]
        return self.run(self.decoder, given, outputs, ["logits"])

    def texts(self, chunks: Sequence[Any]) -> list[str]:
        """The texts of a batch of sounds of at most 30 s."""
        made = np.stack([features(chunk, self.bands) for chunk in chunks]).astype(self.dtype)
        [states] = self.run(self.encoder, {"input_features": made}, ["last_hidden_state"])
        count, beam = len(chunks), self.beam
        heads = next(value.shape for value in self.past.values())
        unused = np.zeros((count, heads[1], 1, heads[3]), self.dtype)
        own = [name for name in self.past if ".decoder." in name]
        heard = [name for name in self.past if ".encoder." in name]
        tokens = np.tile(self.prompt, (count, 1))
        logits, *values = self.step(tokens, states, dict.fromkeys(self.past, unused), [*own, *heard], False)
        rows = np.arange(count).repeat(beam)
        cache, sound = self.take(values[: len(own)], rows), self.take(values[len(own) :], rows)
        shares = log_shares(logits.numpy()[:, -1] + self.first_mask)
        order = np.argsort(-shares, axis=1)[:, :beam]
        totals, texts = np.take_along_axis(shares, order, 1), order.reshape(-1, 1)
        ended: list[list[tuple[float, Any]]] = [[] for _ in chunks]
        for number in range(1, _MOST):
            past = dict(zip(own, cache, strict=True)) | dict(zip(heard, sound, strict=True))
            logits, *values = self.step(texts[:, -1:].astype(np.int64), states, past, own, True)
            shares = (log_shares(logits.numpy()[:, -1]) + totals.reshape(-1, 1)).reshape(count, -1)
            best = np.argpartition(-shares, 2 * beam, axis=1)[:, : 2 * beam]
            best = np.take_along_axis(best, np.argsort(-np.take_along_axis(shares, best, 1), axis=1), 1)
            kept = self.keep(best, shares / number, texts, ended)
            totals = np.take_along_axis(shares, kept, 1)
            rows = (kept // self.vocabulary + beam * np.arange(count)[:, None]).reshape(-1)
            texts = np.concatenate([texts[rows], kept.reshape(-1, 1) % self.vocabulary], 1)
            if all(len(each) >= beam for each in ended):
                break
            cache = self.take(values, rows)
        self.steps.append((count, number))
        best_of = [
            max(each, key=lambda pair: pair[0])[1] if each else texts[chunk * beam] for chunk, each in enumerate(ended)
        ]
        texts_of = [[int(token) for token in text if token < self.end] for text in best_of]
        if self.attentions:
            self.times(texts_of, states, [len(chunk) for chunk in chunks], dict.fromkeys(self.past, unused))
        return [self.tokenizer.decode(text) for text in texts_of]

    def keep(self, best: Any, means: Any, texts: Any, ended: list[list[tuple[float, Any]]]) -> Any:
        """The places of the beams that go on; those that end are added to `ended`."""
        kept = np.zeros((len(best), self.beam), np.int64)
        for chunk, row in enumerate(best):
            stays = [place for place in row if place % self.vocabulary != self.end]
            for place in row[: self.beam]:
                if place % self.vocabulary == self.end:
                    found = texts[chunk * self.beam + place // self.vocabulary]
                    ended[chunk].append((means[chunk, place], found))
            kept[chunk] = stays[: self.beam]
        return kept

    def times(self, texts: Sequence[Sequence[int]], states: Any, samples: Sequence[int], past: dict[str, Any]) -> None:
        """Align the tokens of texts with their sounds, and find the probability of each."""
        tokens = np.full((len(texts), len(self.prompt) + max(map(len, texts)) + 1), self.end)
        for row, text in zip(tokens, texts, strict=True):
            row[: len(self.prompt) + len(text)] = [*self.prompt, *text]
        given = {"input_ids": tokens, "encoder_hidden_states": states, "use_cache_branch": np.array([False]), **past}
        names = ["logits", *self.attentions]
        logits, *found = (each.numpy() for each in self.run(self.decoder, given, names, names))
        attention, begin = np.concatenate(found, 1), len(self.prompt) - 1
        for number, text in enumerate(texts):
            rows = log_shares(logits[number, begin : begin + len(text), : self.end])
            shares = np.exp(rows[np.arange(len(text)), text])
            path = path_of(attention[number, :, : begin + len(text) + 2], begin, samples[number] // 320)
            self.aligned += [(shares, path)]

    def transcribe(self, sound: Path, out: Path) -> list[str]:
        """The words of a wav of 16 kHz, in chunks of 28 s; writes them."""
        with wave.open(str(sound)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
        chunks = [samples[first : first + CHUNK_S * RATE] for first in range(0, len(samples), CHUNK_S * RATE)]
        texts = []
        for first in range(0, len(chunks), self.batch):
            texts += self.texts(chunks[first : first + self.batch])
        out.write_text("\n".join(texts))
        return [f" {word}" for text in texts for word in text.split()]


def log_shares(logits: Any) -> Any:
    """The logarithms of the softmax of rows."""
    logits = logits.astype(np.float32)
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
