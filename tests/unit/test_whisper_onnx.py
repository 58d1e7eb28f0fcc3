"""Whisper as ONNX files: folders of optimum and Transformers.js, beam search, batches, times, and what is refused."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from engines.inference.resident import HostPlace
from engines.inference.whisper_onnx import WhisperOnnxSession
from engines.models.catalogue import load_model, models_folder, save_model, travelling
from engines.models.proposal import propose
from engines.models.store import Found, find, new_files
from engines.speech.alignment import path_of
from engines.speech.model import Search
from engines.speech.search import Beams, penalised
from schemas.errors import ModelError
from tests.cli import rigflow
from tests.whisper_exports import Sizes, random_weights, write_export

Array = np.ndarray[Any, Any]
SPECIAL = [
    f"<|{name}|>"
    for name in ("endoftext", "startoftranscript", "en", "de", "translate", "transcribe", "startofprev", "nospeech")
] + ["<|notimestamps|>"]
SIZES = Sizes()
FIRST_SPECIAL = SIZES.tokens - len(SPECIAL)
END, START, ENGLISH, _, _, TASK, _, SILENT, NO_TIMES = range(FIRST_SPECIAL, SIZES.tokens)
PROMPT = [START, ENGLISH, TASK, NO_TIMES]
NOT_FIRST = [3, END]
HEADS = [[0, 1], [1, 0], [1, 1]]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def export(folder: Path, form: str = "merged", graphs: str = "", **options: Any) -> Path:
    """A folder with a tokenizer of words; its graphs are below it in `graphs`."""
    from tokenizers import Tokenizer, models

    words = {f"word{number}": number for number in range(FIRST_SPECIAL)}
    vocabulary = words | {name: FIRST_SPECIAL + number for number, name in enumerate(SPECIAL)}
    given = {"alignment_heads": HEADS, "begin_suppress_tokens": NOT_FIRST}
    write_export(folder / graphs, random_weights(SIZES), SIZES, form, **given, **options)
    for name in ("config.json", "generation_config.json"):
        (folder / graphs / name).rename(folder / name)
    Tokenizer(models.WordLevel(vocabulary, "word0")).save(str(folder / "tokenizer.json"))
    return folder


def found(path: Path) -> Found:
    with new_files() as new:
        given = find(path, new)
        card = propose(given.path, given.content, given.name).card()
        card = card.model_copy(update={"files": given.content.files})
        travelling(given.path, card, given.content)
        save_model(models_folder(), card, given.content)
    return given


def opened(path: Path) -> WhisperOnnxSession:
    """A session of a folder as `rigflow model add` keeps it."""
    spec, content = load_model(models_folder() / f"{found(path).name}.json")
    assert spec.backend == "onnxruntime-whisper"
    return WhisperOnnxSession(content, spec, HostPlace(spec.name))


def sounds(count: int) -> Array:
    return np.random.default_rng(5).normal(0, 1, (count, SIZES.bands, 3000)).astype(np.float32)


def plain(folder: Path, features: Array, most: int) -> tuple[list[int], float]:
    """Greedy tokens and their mean log probability by the graph of the first tokens alone, without a cache."""
    encoder, decoder = (
        ort.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for name in ("encoder_model", "decoder_model")
    )
    [states] = encoder.run(None, {"input_features": features[None]})
    tokens, total = list(PROMPT), 0.0
    while len(tokens) < len(PROMPT) + most:
        given = {"input_ids": np.array([tokens]), "encoder_hidden_states": states}
        row = decoder.run(["logits"], given)[0][0, -1].astype(np.float64)
        if len(tokens) == len(PROMPT):
            row[NOT_FIRST] = -np.inf
        row -= np.log(np.exp(row - row.max()).sum()) + row.max()
        tokens.append(int(row.argmax()))
        total += row.max()
        if tokens[-1] == END:
            break
    text = tokens[len(PROMPT) :]
    return [each for each in text if each != END], total / (len(text) + (text[-1] != END))


def test_greedy_texts_are_those_of_the_graph_without_a_cache(tmp_path: Path) -> None:
    folder, features = export(tmp_path / "two", "two"), sounds(3)
    session = opened(folder)
    made = session.generate(session.encode(features), [PROMPT] * 3, Search(beam=1, most_tokens=24))
    for row, given in zip(features, made, strict=True):
        tokens, log_prob = plain(folder, row, 12)
        assert list(given.tokens) == tokens
        assert given.log_prob == pytest.approx(log_prob, abs=1e-4)
        assert 0 < given.no_speech < 1


def test_both_forms_and_any_batch_give_equal_answers(tmp_path: Path) -> None:
    """A chunk alone, and with others: equal bits; a merged graph answers as two graphs do."""
    features, search = sounds(3), Search(suppressed=(1, 2), most_tokens=40)
    sessions = [opened(export(tmp_path / form, form)) for form in ("merged", "two")]
    answers = []
    for session in sessions:
        states = session.encode(features)
        texts = session.generate(states, [PROMPT] * 3, search)
        aligned = session.align(states, PROMPT[:-1], [each.tokens for each in texts], [3000, 2000, 100])
        answers.append((texts, aligned, session.languages(states)))
        for number in range(3):
            alone = session.encode(features[number : number + 1])
            assert session.generate(alone, [PROMPT], search) == texts[number : number + 1]
            assert session.languages(alone) == answers[-1][2][number : number + 1]
            frames = [3000, 2000, 100][number]
            assert session.align(alone, PROMPT[:-1], [texts[number].tokens], [frames]) == [aligned[number]]
    assert answers[0] == answers[1]
    texts, aligned, languages = answers[0]
    assert any(each.tokens for each in texts)
    assert not {1, 2} & {token for each in texts for token in each.tokens}
    for text, each in zip(texts, aligned, strict=True):
        assert len(each.probabilities) == len(text.tokens)
        assert {token for token, _ in each.path} == set(range(len(text.tokens) + 1))
    assert max(state for _, state in aligned[2].path) == 49
    assert {code for code, _ in languages[0]} == {"en", "de"}
    assert sum(share for _, share in languages[0]) == pytest.approx(1)


def test_one_beam_per_text_of_a_batch_is_the_search_of_each_text() -> None:
    """Texts of many beams are searched together as each alone, and a wide beam finds the best text of all."""
    random, vocabulary, end = np.random.default_rng(3), 5, 4
    tables = np.log(random.dirichlet(np.full(vocabulary, 0.4), (3, 4, vocabulary)))  # [text, step, last, token]
    search = Search(beam=60, length_penalty=1.0, patience=9)

    def searched(chosen: list[int]) -> list[Any]:
        beams = Beams(len(chosen), search, end, 4)
        for step in range(4):
            rows = len(beams.tokens) // len(chosen)
            last = beams.tokens[:, -1] if step else np.zeros(len(chosen), int)
            shares = tables[np.repeat(chosen, rows), step, last] + beams.totals[:, None]
            flat = shares.reshape(len(chosen), -1)
            flat = np.pad(flat, [(0, 0), (0, max(0, 120 - flat.shape[1]))], constant_values=-np.inf)
            order = np.argsort(-flat, axis=1, kind="stable")[:, :120]
            beams.advance(np.take_along_axis(flat, order, 1), np.where(order < rows * 5, order, end), vocabulary)
        assert beams.done
        return beams.best()

    together = searched([0, 1, 2])
    for text in range(3):
        [alone] = searched([text])
        assert alone.tokens == together[text].tokens
        best = -np.inf
        for length in range(1, 5):
            for tokens in itertools.product(range(4), repeat=length):
                steps = [*tokens, end][:4]
                total = sum(tables[text, n, steps[n - 1] if n else 0, token] for n, token in enumerate(steps))
                best = max(best, total / length)
        assert alone.total / len(alone.tokens) == pytest.approx(best, rel=1e-4)


def test_repetitions_are_penalised_and_forbidden() -> None:
    logits = np.array([[2, -2, 1, 0], [2, -2, 1, 0]], np.float32)
    tokens = np.array([[0, 1, 0], [2, 2, 2]])
    made = penalised(logits, tokens, Search(repetition_penalty=2.0))
    np.testing.assert_array_equal(made, [[1, -4, 1, 0], [2, -2, 0.5, 0]])
    made = penalised(logits, tokens, Search(no_repeat=2))
    np.testing.assert_array_equal(made, [[2, -np.inf, 1, 0], [2, -2, -np.inf, 0]])
    np.testing.assert_array_equal(penalised(logits, tokens, Search(no_repeat=4)), logits)


def test_the_path_is_the_cheapest_one() -> None:
    """Against a plain loop over all cells, as openai/whisper has it."""
    attention = np.random.default_rng(1).dirichlet(np.ones(40), (2, 9)).astype(np.float32)
    path = path_of(attention, 2, 30)
    shares = attention[:, :, :30] / attention[:, :, :30].sum(-1, keepdims=True)
    shares = (shares - shares.mean(1, keepdims=True)) / shares.std(1, keepdims=True)
    padded = np.pad(shares, [(0, 0), (0, 0), (3, 3)], mode="reflect")
    smooth = np.median(np.stack([padded[..., n : n + 30] for n in range(7)]), axis=0).mean(0)[2:-1]
    costs = np.full((7, 31), np.inf)
    costs[0, 0] = 0
    for row, column in itertools.product(range(1, 7), range(1, 31)):
        before = min(costs[row - 1, column - 1], costs[row - 1, column], costs[row, column - 1])
        costs[row, column] = before - smooth[row - 1, column - 1]
    assert path[0] == (0, 0)
    assert path[-1] == (5, 29)
    assert sum(-smooth[place] for place in path) == pytest.approx(costs[6, 30], rel=1e-4)
    assert path_of(attention[:, :3], 2, 30) == path_of(attention, 2, 0) == ()


def test_a_precision_is_chosen_by_its_file(tmp_path: Path) -> None:
    """Folders of Transformers.js have several precisions in onnx/."""
    folder = export(tmp_path / "js", graphs="onnx", suffix="_fp16", dtype=np.float16)
    assert found(folder).name == "js"
    write_export(tmp_path / "more", random_weights(SIZES, 2), SIZES, suffix="_q8")
    for path in (tmp_path / "more").glob("*.onnx"):
        path.rename(folder / "onnx" / path.name)
    with pytest.raises(ModelError, match=r"several precisions: encoder_model_q8.onnx, encoder_model_fp16.onnx"):
        found(folder)
    session = opened(folder / "onnx" / "encoder_model_fp16.onnx")
    [text] = session.generate(session.encode(sounds(1)), [PROMPT], Search(most_tokens=20))
    assert np.isfinite(text.log_prob)
    assert [file.name for file in session.spec.files][:2] == ["encoder_model.onnx", "decoder_model_merged.onnx"]
    added = rigflow("model", "add", folder / "onnx" / "encoder_model_q8.onnx", "--yes", HOME=str(tmp_path / "home"))
    assert added.returncode == 0, added.stderr
    assert "decoder_model_merged.onnx" in added.stdout
    assert "now gives the attention for times of words" in added.stdout


def test_the_attention_of_a_quantised_decoder_is_found(tmp_path: Path) -> None:
    """The quantiser of ONNX Runtime puts nodes in front of both branches."""
    from onnxruntime.quantization import quantize_dynamic

    folder = export(tmp_path / "plain")
    (made := tmp_path / "quantised").mkdir()
    for path in folder.iterdir():
        if path.suffix == ".json":
            (made / path.name).write_bytes(path.read_bytes())
        else:
            options = {"EnableSubgraph": True}
            quantize_dynamic(path, made / f"{path.stem}_int8.onnx", ["MatMul"], extra_options=options)
    session = opened(made)
    [aligned] = session.align(session.encode(sounds(1)), PROMPT[:-1], [[1, 2]], [3000])
    assert {token for token, _ in aligned.path} == {0, 1, 2}


def changed(path: Path, change: Any) -> None:
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)


def test_a_fused_decoder_has_no_times_of_words(tmp_path: Path) -> None:
    folder = export(tmp_path / "fused", "two")

    def fuse(graph: Any) -> None:
        for node in [each for each in graph.node if each.op_type == "Softmax"]:
            node.op_type = "LogSoftmax"
            exp = onnx.helper.make_node("Exp", [f"{node.output[0]}_log"], [node.output[0]])
            node.output[0] = f"{node.output[0]}_log"
            graph.node.insert(list(graph.node).index(node) + 1, exp)

    changed(folder / "decoder_model.onnx", fuse)
    taken = found(folder).taken
    assert [why for file, why in taken.why.items() if file.name == "decoder_model.onnx"] == [
        "a graph; its attention is fused, so there are no times of words, only those of chunks"
    ]
    session = opened(folder)
    [aligned] = session.align(session.encode(sounds(1)), PROMPT[:-1], [[1, 2]], [3000])
    assert (len(aligned.probabilities), aligned.path) == (2, ())


def test_what_cannot_run_is_refused_in_a_line(tmp_path: Path) -> None:
    folder = export(tmp_path / "w", "two")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"decoder_layers": 2', '"decoder_layers": "2"'))
    with pytest.raises(ModelError, match=r"config.json has no number decoder_layers"):
        found(folder)
    (folder / "config.json").write_text(text)
    (folder / "generation_config.json").write_text('{"alignment_heads": [[2, 0]]}')
    with pytest.raises(ModelError, match=r"alignment_heads has \[2, 0\], which the network lacks"):
        found(folder)
    (folder / "generation_config.json").unlink()
    changed(folder / "decoder_with_past_model.onnx", lambda graph: setattr(graph.input[0], "name", "ids"))
    with pytest.raises(ModelError, match=r"cannot be loaded|wants `ids`"):
        opened(folder)
    (folder / "decoder_with_past_model.onnx").rename(tmp_path / "away.onnx")
    with pytest.raises(ModelError, match=r"no decoder beside it that keeps keys and values from token to token"):
        found(folder)
    (tmp_path / "away.onnx").rename(folder / "decoder_with_past_model.onnx")
    (folder / "decoder_model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="is not an ONNX file"):
        found(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError):
        found(folder)
