"""Answers in rows of keys and values: those of a plain loop over the same graph, whatever is written beside them."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.content import ModelFiles
from engines.generation.answer_request import Sampling
from engines.generation.answering import BULK_TURN
from engines.inference.decoder_graph import decoder_graph
from engines.inference.key_value_table import HostTable
from engines.inference.resident import HostPlace
from schemas.errors import ModelError
from schemas.model import ModelSpec
from tests.language import CONTEXT, language_folder
from tests.row_answers import LikeGpu, LikeGpuThatCopies, Plain, answering, begun, opened, question

PLACES: list[type[HostPlace]] = [HostPlace, LikeGpu, LikeGpuThatCopies]


@pytest.fixture(scope="module", params=[False, True], ids=["mask", "positions"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_folder(tmp_path_factory.mktemp("rows") / "tiny", positions=request.param)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Plain:
    return Plain(folder)


ASKED = st.lists(
    st.tuples(
        st.integers(0, 30),  # at which step it is asked
        st.one_of(st.integers(1, 20), st.sampled_from([63, 64, 65, 127, 128, 129, 300, 440])),
        st.integers(1, 40),
        st.booleans(),  # urgent
        st.one_of(st.none(), st.integers(0, 30)),  # after how many steps it is cancelled
    ),
    min_size=1,
    max_size=14,
)


@pytest.mark.parametrize("place", PLACES)
@given(asked=ASKED, slots=st.integers(1, 12))
@settings(max_examples=10)
def test_answers_are_those_of_a_plain_loop(
    folder: Path, plain: Plain, place: type[HostPlace], asked: list[tuple[int, int, int, bool, int | None]], slots: int
) -> None:
    rows, answers, step = answering(folder, place, slots), {}, 0
    while rows.busy or len(answers) < len(asked):
        for number, (at, length, most, urgent, cancelled) in enumerate(asked):
            if at <= step and number not in answers:
                answers[number] = begun(rows, question(length, number), most, urgent=urgent)
            elif number in answers and cancelled is not None and step == at + cancelled:
                answers[number].cancel()
        rows.step(lambda: None)
        step += 1
    for number, (_, length, most, _, _) in enumerate(asked):
        text = plain.answer(question(length, number), most)
        answer = answers[number]
        assert answer.error is None
        if answer.finish == "cancelled":
            assert text.startswith(answer.text)
        else:
            assert (answer.text, answer.finish) == (text, "length" if len(text) == most else "stop")
    assert rows.room == slots


def test_rows_of_several_blocks_have_their_answers(folder: Path, plain: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.inference.gpu_table._BLOCK", 4)
    rows = answering(folder, LikeGpu, 11)
    answers = [begun(rows, question(5 + n, n), 10 + 7 * (n % 5), urgent=n % 3 == 0) for n in range(25)]
    while rows.busy:
        rows.step(lambda: None)
    for number, answer in enumerate(answers):
        assert answer.text == plain.answer(question(5 + number, number), 10 + 7 * (number % 5))


@pytest.mark.parametrize("place", PLACES)
def test_drawn_answers_do_not_depend_on_those_beside_them(folder: Path, place: type[HostPlace]) -> None:
    def drawn(count: int) -> list[str]:
        rows = answering(folder, place, 6)
        made = [begun(rows, question(9, n), 30, sampling=Sampling(2.0, 0.9, 40, n)) for n in range(count)]
        made += [begun(rows, question(5, n), 10) for n in range(count)]
        while rows.busy:
            rows.step(lambda: None)
        return [answer.text for answer in made[:count]]

    assert drawn(5)[:1] == drawn(1)
    assert len(set(drawn(5))) == 5


def test_a_person_waits_for_one_step_and_bulk_has_its_turn(tmp_path: Path) -> None:
    rows = answering(language_folder(tmp_path / "tiny", ends=False), HostPlace, 9)
    bulk = [begun(rows, question(8, n), 400) for n in range(20)]
    for _ in range(20):
        rows.step(lambda: None)
    assert rows.room == 0
    assert sum(answer.tokens > 0 for answer in bulk) == 8, "one place is for people"
    before = [answer.tokens for answer in bulk]
    person = begun(rows, question(8, 99), 400, urgent=True)
    rows.step(lambda: None)
    assert person.tokens == 1
    for _ in range(2 * BULK_TURN):
        rows.step(lambda: None)
    assert person.tokens == 1 + 2 * BULK_TURN, "it has a token in each step"
    assert {after.tokens - was for after, was in zip(bulk, before, strict=True) if was} == {2}
    people = [begun(rows, question(8, 100 + n), 5, urgent=True) for n in range(3)]
    for _ in range(30):
        rows.step(lambda: None)
    assert all(answer.done for answer in people), "bulk is put back for them"


def test_an_answer_that_cannot_begin_fails_alone(folder: Path, plain: Plain) -> None:
    rows = answering(folder, HostPlace, 4)
    bad, good = begun(rows, [97], 5, grammar="it"), begun(rows, [97], 5)
    while rows.busy:
        rows.step(lambda: None)
    assert "it cannot write it" in str(bad.error)
    assert good.text == plain.answer([97], 5)


@pytest.mark.parametrize("place", PLACES)
def test_questions_share_a_run_where_little_is_padding(folder: Path, place: type[HostPlace]) -> None:
    table = answering(folder, place, 32).table
    assert table.fits([5, 6, 7])
    assert not table.fits([20, 400])
    assert not table.fits([20] * 33)


def changed(folder: Path, change: Callable[[Any], None], tmp_path: Path) -> tuple[ModelFiles, ModelSpec]:
    """The folder with another graph."""
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    model = onnx.load(other / "model.onnx")
    change(model)
    onnx.save(model, other / "model.onnx")
    return opened(other)


def test_graphs_that_cannot_be_computed_over_rows_are_known(folder: Path, tmp_path: Path) -> None:
    def with_input(model: Any) -> None:
        model.graph.input.append(onnx.helper.make_tensor_value_info("cache_position", 7, ["T"]))

    def by_others(model: Any) -> None:
        [node] = [each for each in model.graph.node if each.op_type == "GroupQueryAttention"]
        node.op_type = "MultiHeadAttention"

    def last_alone(model: Any) -> None:
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1

    def of_bytes(model: Any) -> None:
        for each in (*model.graph.input, *model.graph.output):
            if each.name.startswith(("past", "present")):
                each.type.tensor_type.elem_type = onnx.TensorProto.UINT8

    for number, change in enumerate((with_input, by_others, last_alone, of_bytes)):
        place = tmp_path / str(number)
        place.mkdir()
        assert decoder_graph(*changed(folder, change, place)) is None, change.__name__


def test_weights_beside_a_graph_are_those_of_the_model(folder: Path, tmp_path: Path) -> None:
    def apart(model: Any) -> None:
        onnx.external_data_helper.convert_model_to_external_data(model, location="model.onnx.data", size_threshold=256)

    model, spec = changed(folder, apart, tmp_path)
    graph = decoder_graph(model, spec)
    assert graph is not None
    data = next(file for file in spec.files if file.name == "model.onnx.data")
    assert data.sha256.encode() in graph.content.graph
    assert hashlib.sha256((model.folder / data.sha256).read_bytes()).hexdigest() == data.sha256
    scores = HostTable(graph, HostPlace("tiny"), 1, CONTEXT).read(0, [np.array([97, 98], np.int32)])
    assert chr(scores.best()[0]) == Plain(folder).answer([97, 98], 1)
    others = tuple(file for file in spec.files if file is not data)
    with pytest.raises(ModelError, match=r"has no file model\.onnx\.data"):
        decoder_graph(model, spec.model_copy(update={"files": others}))


def test_names_of_keys_and_values_may_be_left_out_of_the_settings(folder: Path) -> None:
    model, spec = opened(folder)
    config = json.loads(model.graph)
    del config["model"]["decoder"]["inputs"], config["model"]["decoder"]["outputs"]
    graph = decoder_graph(ModelFiles(json.dumps(config).encode(), model.files, model.folder), spec)
    assert graph is not None
    assert graph.past == ("past_key_values.0.key", "past_key_values.0.value")
