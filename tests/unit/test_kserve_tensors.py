"""Bodies of KServe v2: arrays come back as they went, and any other bytes are one line that says what is wrong."""

import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

from gateway.kserve.bodies import Room
from gateway.kserve.models import dense
from gateway.kserve.tensors import DTYPES, InferRequest, classified, encode_answer, parse_request
from gateway.problems import HttpError, problem_of
from schemas.errors import UsageError

REQUEST = InferRequest(inputs=[])


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]} | fields


def request(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def binary(data: bytes, size: Any = None, **fields: Any) -> tuple[bytes, int]:
    given = tensor(parameters={"binary_data_size": len(data) if size is None else size}, **fields)
    del given["data"]
    head = request(given)
    return head + data, len(head)


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_comes_and_goes_in_both_forms(datatype: str) -> None:
    array = np.array([[0, 1], [1, 0]], DTYPES[datatype])
    for data in (array.tolist(), array.reshape(-1).tolist()):
        _, found = parse_request(request(tensor(datatype=datatype, data=data)), None)
        assert found["x"].dtype == array.dtype
        assert np.array_equal(found["x"], array)
    body, length = binary(array.tobytes(), datatype=datatype)
    _, found = parse_request(body, length)
    assert found["x"].tobytes() == array.tobytes()
    answer, json_bytes = encode_answer({"id": "a"}, {"x": array}, REQUEST, {})
    assert json_bytes is None
    [output] = json.loads(answer)["outputs"]
    assert (output["datatype"], output["shape"]) == (datatype, [2, 2])
    assert np.array_equal(np.array(output["data"], array.dtype).reshape(2, 2), array)
    wanted = InferRequest(inputs=[], parameters={"binary_data_output": True})
    answer, json_bytes = encode_answer({}, {"x": array}, wanted, {})
    assert answer[json_bytes:] == array.tobytes()


EDGES = {"INT8": [-128, 127], "UINT64": [2**64 - 1, 0], "INT64": [-(2**63), 2**63 - 1], "FP64": [1e308, -1e308]}


@pytest.mark.parametrize("datatype", EDGES)
def test_the_least_and_largest_numbers_are_exact(datatype: str) -> None:
    _, found = parse_request(request(tensor(datatype=datatype, shape=[2], data=EDGES[datatype])), None)
    assert found["x"].tolist() == EDGES[datatype]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"data": [1, 2, 3]}, "input `x`: [2, 2] has 4 values, and data has 3"),
        ({"shape": [2**40, 2**20]}, "has 1152921504606846976 values, and data has 4"),
        ({"shape": [2**62]}, "inputs.0.shape.0: "),
        ({"shape": [-1, 2]}, "inputs.0.shape.0: "),
        ({"shape": [2.0, 2]}, "inputs.0.shape.0: "),
        ({"shape": [1] * 33}, "inputs.0.shape: "),
        ({"shape": [0, 2**61, 2**61], "data": []}, "[0, 2305843009213693952, 2305843009213693952] is too large"),
        ({"shape": "2"}, "inputs.0.shape: "),
        ({"data": [[1, 2], [3]]}, "its lists have different lengths"),
        ({"data": ["a", "b", "c", "d"]}, "FP32 takes numbers up to"),
        ({"data": [["a" * (1 << 20)], *[[""]] * (1 << 16)]}, "FP32 takes numbers up to"),  # 256 GB, were it an array
        ({"data": [None] * 4}, "FP32 takes numbers up to"),
        ({"data": [True] * 4}, "FP32 takes numbers up to"),
        ({"data": [1e39] * 4}, "FP32 takes numbers up to 3.40282e+38"),
        ({"data": [10**400] * 4}, "FP32 takes numbers up to"),
        ({"datatype": "INT8", "data": [1, 2, 3, 128]}, "INT8 takes whole numbers of -128 to 127"),
        ({"datatype": "INT64", "data": [1.5, 2, 3, 4]}, "INT64 takes whole numbers"),
        ({"datatype": "UINT8", "data": [-1, 2, 3, 4]}, "UINT8 takes whole numbers of 0 to 255"),
        ({"datatype": "UINT64", "data": [-1, 2**64 - 1, 3, 4]}, "UINT64 takes whole numbers of 0 to 1844"),
        ({"datatype": "UINT64", "data": [2**64, 1, 3, 4]}, "UINT64 takes whole numbers of 0 to 1844"),
        ({"datatype": "BOOL", "data": [0, 1, 0, 1]}, "BOOL takes true and false"),
        ({"datatype": "BYTES", "data": ["a"] * 4}, "datatype 'BYTES': there are BOOL, UINT8"),
        ({"datatype": "BF16"}, "datatype 'BF16': there are"),
        ({"datatype": 3}, "inputs.0.datatype: "),
        ({"data": None}, "has neither data nor binary_data_size"),
        ({"parameters": {"binary_data_size": 16}}, "has data and binary_data_size"),
        ({"parameters": {"shared_memory_region": "a"}}, "shared memory is not offered"),
        ({"name": 5}, "inputs.0.name: "),
    ],
)
def test_a_tensor_that_is_none_says_why(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_request(request(tensor(**fields)), None)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "length", "reason"),
    [
        (b"", None, "the request is no JSON"),
        (b"{", None, "the request is no JSON"),
        (b"\xff\xfe", None, "the request is no JSON"),
        (b"[" * 100_000, None, "the request is no JSON"),
        (b"[]", None, "the request: "),
        (b"{}", None, "the request: inputs"),
        (
            b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN]}]}',
            None,
            "the request is no JSON",
        ),
        (request(tensor(), tensor()), None, "input `x` is there twice"),
        (request(*[tensor(name=str(n)) for n in range(1025)]), None, "the request: inputs"),
        (request(tensor()) + b"12", None, "the request is no JSON"),
        (request(tensor()), 10**18, "Inference-Header-Content-Length is 1000000000000000000, and the body has"),
        (request(tensor()) + b"12", len(request(tensor())), "2 bytes follow the last input"),
        (*binary(b"1234567890123456", size=15), "FP32 [2, 2] has 16 bytes, not 15"),
        (*binary(b"123456789012345", size=16), "binary_data_size is 16, and 15 bytes are left"),
        (*binary(b"1234567890123456", size=-1), "binary_data_size is -1"),
        (*binary(b"1234567890123456", size="16"), "binary_data_size is 16"),
        (*binary(b"1234567890123456", size=True), "binary_data_size is True"),
        (*binary(b"", size=0, shape=[2**61, 0, 2**61]), "is too large"),
        (*binary(b"", size=2**70), "binary_data_size is 1180591620717411303424, and 0 bytes"),
    ],
)
def test_any_body_is_a_request_or_one_line(body: bytes, length: int | None, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_request(body, length)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_that_json_does_not_have_are_null() -> None:
    answer, _ = encode_answer({}, {"y": np.array([1, np.nan, np.inf], np.float32)}, REQUEST, {})
    assert json.loads(answer)["outputs"][0]["data"] == [1.0, None, None]


def test_the_best_classes_are_those_of_triton() -> None:
    scores = np.array([[0.25, 0.5, 0.125], [1, 1, 2]], np.float32)
    assert classified(scores, 2, ["cat", "dog"]) == [
        ["0.500000:1:dog", "0.250000:0:cat"],
        ["2.000000:2", "1.000000:0:cat"],
    ]
    wanted = InferRequest.model_validate(
        {"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": 1}}]}
    )
    [output] = json.loads(encode_answer({}, {"y": scores}, wanted, {})[0])["outputs"]
    assert output == {"name": "y", "datatype": "BYTES", "shape": [2, 1], "data": ["0.500000:1", "2.000000:2"]}
    with pytest.raises(UsageError, match="1 or more"):
        classified(scores, -1, [])


def test_an_output_that_is_not_there_says_which_are() -> None:
    wanted = InferRequest.model_validate({"inputs": [], "outputs": [{"name": "z"}]})
    with pytest.raises(UsageError, match="there is no output `z`: there are `y`"):
        encode_answer({}, {"y": np.zeros(1)}, wanted, {})


def test_rows_of_one_length_are_dense() -> None:
    offsets = [np.array([0, 2, 4]), np.array([0, 2])]
    made = dense({"y": [np.arange(4), np.arange(2)], "y_offsets": offsets}, {"y"})
    assert {name: array.tolist() for name, array in made.items()} == {"y": [[0, 1], [2, 3], [0, 1]]}
    nothing = dense({"y": [np.empty((0, 3))], "y_offsets": [np.array([0, 0])]}, {"y"})
    assert nothing["y"].shape == (1, 0, 3)
    with pytest.raises(UsageError, match="rows of different lengths, 1 to 2: send one row"):
        dense({"y": [np.arange(3)], "y_offsets": [np.array([0, 2, 3])]}, {"y"})


def test_the_requests_of_a_gateway_share_its_memory() -> None:
    room = Room(100)
    room.take(60)
    with pytest.raises(HttpError) as caught:
        room.take(60)
    problem, headers = problem_of(caught.value)
    assert problem.status == 503
    assert len({problem_of(caught.value)[1]["Retry-After"] for _ in range(100)}) > 1, "not all come back at once"
    assert int(headers["Retry-After"]) in range(2, 9)
    room.give_back(60)
    room.take(100)
