"""KServe v2 over a real fleet: answers, errors in words, what clients leave that go away, and the page's examples."""

import asyncio
import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from engines.media.tensor import TensorMedium  # noqa: E402
from gateway.keys import KeyHolders  # noqa: E402
from gateway.kserve import bodies  # noqa: E402
from gateway.kserve.models import Models  # noqa: E402
from gateway.server import listen  # noqa: E402
from pipelines import asking  # noqa: E402
from pipelines.api_keys import make_key  # noqa: E402
from pipelines.broker import Broker  # noqa: E402
from pipelines.job_records import all_manifests  # noqa: E402
from pipelines.registry import builtin_pipeline, withdraw_pipeline  # noqa: E402
from pipelines.usage import read_usage  # noqa: E402
from schemas.api_roles import ApiRole  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.onnx_graphs import FLOAT, INT64, model_of, value  # noqa: E402
from workers.definitions import find_models, register  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "gateway-kserve.md"
COMMANDS = [line[2:] for block in re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
            for line in block.splitlines() if line.startswith("$ ")]  # fmt: skip
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`net`: x [N, 4] float32 -> y [N, 3]; `pick`: numbers of rows of a table, of which a wrong one fails."""
    made = tmp_path_factory.mktemp("models")
    weights = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3) / 7, "w")
    net = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    (made / "net.onnx").write_bytes(
        model_of(net, [value("x", FLOAT, ["N", 4])], [value("y", FLOAT, ["N", 3])], (weights,))
    )
    (made / "net.toml").write_text('[[heads]]\nkind = "classify"\nlabels = ["cat", "dog", "bird"]\n')
    table = numpy_helper.from_array(np.arange(5, dtype=np.float32), "table")
    pick = [helper.make_node("Gather", ["table", "i"], ["y"])]
    (made / "pick.onnx").write_bytes(model_of(pick, [value("i", INT64, ["N"])], [value("y", FLOAT, ["N"])], (table,)))
    return made


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Fleet]:
    async def registered() -> None:
        async with Broker.connected(fleet.settings, "test") as broker:
            for name in ("net", "pick"):
                spec = builtin_pipeline("infer").with_model(name)
                await register(broker, fleet.settings, spec, find_models(spec, folder), variant=True)

    with Fleet(ONE_WORKER, tmp_path_factory.mktemp("cache")) as fleet:
        asyncio.run(registered())
        yield fleet


@pytest.fixture(scope="module")
def http(fleet: Fleet) -> Iterator[Any]:
    with Gateway(fleet.settings) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as client:
        while client.get("/v2/models/net/ready").status_code == 503:  # its worker has told no status yet
            time.sleep(0.1)
        yield client


def request(x: Any, **more: Any) -> dict[str, Any]:
    array = np.asarray(x, np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": list(array.shape), "data": array.tolist()}
    return {"inputs": [tensor], **more}


def right(folder: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = onnxruntime.InferenceSession(folder / "net.onnx").run(["y"], {"x": x})[0]
    return found


def test_an_answer_in_two_pieces_does_not_wait_for_an_acknowledgement() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_models_say_what_they_take(http: Any) -> None:
    assert http.get("/v2/health/live").status_code == http.get("/v2/health/ready").status_code == 200
    assert http.get("/v2").json()["name"] == "rigflow"
    x = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
    for path in ("/v2/models/net", "/v2/models/net/versions/1"):
        found = http.get(path).json()
        assert (found["name"], found["versions"], found["inputs"]) == ("net", ["1"], [x])
    assert found["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]
    config = http.get("/v2/models/net/config").json()
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    assert (config["max_batch_size"], config["platform"]) == (32, "onnxruntime_onnx")
    assert [each["name"] for each in http.post("/v2/repository/index").json()] == ["net", "pick"]
    for path, status in {
        "/v2/models/nothing": 404,
        "/v2/models/net/versions/9": 404,
        "/v2/models/a%20b/ready": 404,
        "/v2/nothing": 404,
        "/v2/systemsharedmemory/status": 501,
    }.items():
        found = http.get(path)
        assert (found.status_code, [*found.json()]) == (status, ["error"]), found.text


def test_answers_in_json_and_in_bytes_are_those_of_one_session(http: Any, folder: Path) -> None:
    x = np.random.default_rng(1).standard_normal((150, 4)).astype(np.float32)
    [before] = http.get("/v2/models/net/stats").json()["model_stats"]
    found = http.post("/v2/models/net/infer", json=request(x[:2], id="a")).json()
    y = right(folder, x)
    assert found == {
        "model_name": "net",
        "model_version": "1",
        "id": "a",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 3], "data": y[:2].reshape(-1).tolist()}],
    }
    wanted = request(x, parameters={"binary_data_output": True})
    wanted["inputs"][0] |= {"parameters": {"binary_data_size": x.nbytes}}
    del wanted["inputs"][0]["data"]
    head = json.dumps(wanted).encode()
    for pack, coding in ((bytes, "identity"), (gzip.compress, "gzip"), (zlib.compress, "deflate")):
        headers = {LENGTH: str(len(head)), "Content-Encoding": coding, "Accept-Encoding": coding}
        found = http.post("/v2/models/net/versions/1/infer", content=pack(head + x.tobytes()), headers=headers)
        assert found.headers.get("content-encoding", "identity") == coding
        assert found.content[int(found.headers[LENGTH]) :] == y.tobytes()
    best = request(x[:1], outputs=[{"name": "y", "parameters": {"classification": 1}}])
    found = http.post("/v2/models/net/infer", json=best).json()["outputs"][0]
    assert found["data"] == [f"{y[0].max():f}:{y[0].argmax()}:{['cat', 'dog', 'bird'][y[0].argmax()]}"]
    [after] = http.get("/v2/models/net/stats").json()["model_stats"]
    assert after["inference_count"] - before["inference_count"] == 2 + 3 * 150 + 1
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 5


BINARY = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}]}'
WRONG: list[tuple[bytes, dict[str, str], str]] = [
    (b"", {}, "no JSON"),
    (b'{"inputs": []}', {}, "it has no input `x`"),
    (json.dumps(request([[1, 2, 3]])).encode(), {}, "input `x` is float32 [1, 3]: give `x` float32 [N, 4]"),
    (json.dumps(request([1, 2, 3, 4])).encode(), {}, "input `x` is float32 [4]: give `x` float32 [N, 4]"),
    (json.dumps(request(np.empty((0, 4)))).encode(), {}, "its inputs have no rows"),
    (json.dumps(request([[1] * 4])).replace('"x"', '"z"').encode(), {}, "it has no input `x`, only `z`"),
    (json.dumps(request([[1] * 4], outputs=[{"name": "z"}])).encode(), {}, "there is no output `z`: there are `y`"),
    (json.dumps(request([[1] * 4], parameters={"sequence_id": 7})).encode(), {}, "parameter sequence_id"),
    (json.dumps(request([[1] * 4], parameters={"timeout": "x"})).encode(), {}, "microseconds"),
    (BINARY + bytes(15), {LENGTH: str(len(BINARY))}, "binary_data_size is 16, and 15 bytes are left"),
    (BINARY + bytes(16), {LENGTH: "-1"}, f"{LENGTH} is '-1'"),
    (BINARY + bytes(16), {LENGTH: "12a"}, f"{LENGTH} is '12a'"),
    (BINARY + bytes(16), {LENGTH: "9" * 30}, f"{LENGTH} is '9999"),
    (BINARY + bytes(16), {LENGTH: "99999999"}, "and the body has"),
    (b"no gzip", {"Content-Encoding": "gzip"}, "cannot be decompressed"),
    (gzip.compress(b"{}")[:-4], {"Content-Encoding": "gzip"}, "ends within its gzip"),
    (gzip.compress(b"{}") + b"1", {"Content-Encoding": "gzip"}, "bytes follow the compressed body"),
]


def test_a_wrong_request_is_one_line(http: Any) -> None:
    for body, headers, reason in WRONG:
        found = http.post("/v2/models/net/infer", content=body, headers=headers)
        assert (found.status_code, [*found.json()]) == (400, ["error"]), (body[:200], found.text)
        assert reason in found.json()["error"], found.text
    assert http.post("/v2/models/net/infer", content=b"x", headers={"Content-Encoding": "br"}).status_code == 415


def test_a_request_that_is_too_large_is_refused(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_BYTES", 1 << 20)
    for body, coding in ((bytes(2 << 20), "identity"), (gzip.compress(bytes(2 << 20)), "gzip")):
        found = http.post("/v2/models/net/infer", content=body, headers={"Content-Encoding": coding})
        assert (found.status_code, found.json()) == (
            413,
            {"error": "a request has at most 1,048,576 bytes: send fewer rows"},
        )


def picked(http: Any, *numbers: int) -> Any:
    tensor = {"name": "i", "datatype": "INT64", "shape": [len(numbers)], "data": list(numbers)}
    return http.post("/v2/models/pick/infer", json={"inputs": [tensor]})


def test_a_request_that_fails_in_the_model_fails_alone(http: Any) -> None:
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        answers[number] = picked(http, number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {n: answers[n].json()["outputs"][0]["data"] for n in range(5)} == {n: [n] for n in range(5)}
    for number in range(5, 8):
        assert answers[number].status_code == 400
        assert "model `pick` failed" in answers[number].json()["error"]


async def left_behind(fleet: Fleet) -> tuple[int, int, int]:
    """How many results of requests, jobs and messages in queues there are."""
    async with Broker.connected(fleet.settings, "test") as broker:
        for _ in range(600):
            results = [each async for each in broker.read(broker.names.results_stream, "rigflow.results.*.infer.*")]
            info = await broker.api(f"STREAM.INFO.{broker.names.work_stream('infer', 'decode')}")
            found = len(results), len(await all_manifests(broker)), info["state"]["messages"]
            if not any(found):
                break
            await asyncio.sleep(0.1)
        return found


def test_a_request_leaves_nothing_and_is_counted(http: Any, fleet: Fleet) -> None:
    assert picked(http, 1, 2, 3).status_code == 200
    found = http.post("/v2/models/net/infer", json=request([[1] * 4], parameters={"timeout": 1}))
    assert (found.status_code, [*found.json()]) == (503, ["error"])
    body = json.dumps(request([[1] * 4])).encode()
    with socket.create_connection((http.base_url.host, http.base_url.port)) as leaving:
        head = f"POST /v2/models/net/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        leaving.sendall(head.encode() + body)
    assert asyncio.run(left_behind(fleet)) == (0, 0, 0)

    async def used() -> int:
        async with Broker.connected(fleet.settings, "test") as broker:
            return sum(each.frames for each in (await read_usage(broker, "main", "0", "9", ())).values())

    assert asyncio.run(used()) >= 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_examples_work(http: Any) -> None:
    assert len(COMMANDS) > 8
    for command in COMMANDS:
        given = os.environ | {"GATEWAY": str(http.base_url).rstrip("/")}
        ran = subprocess.run(["sh", "-ec", command], env=given, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, (command, ran.stdout, ran.stderr)


def test_tritons_own_client_works(http: Any, folder: Path) -> None:
    triton = pytest.importorskip("tritonclient.http")
    client = triton.InferenceServerClient(str(http.base_url).removeprefix("http://").rstrip("/"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("net")
    assert client.get_model_metadata("net")["name"] == "net"
    assert client.get_model_config("net", "1")["max_batch_size"] == 32
    assert client.get_inference_statistics("net")["model_stats"][0]["name"] == "net"
    x = np.random.default_rng(2).standard_normal((5, 4)).astype(np.float32)
    for as_bytes in (True, False):
        given = triton.InferInput("x", [5, 4], "FP32").set_data_from_numpy(x, binary_data=as_bytes)
        wanted = triton.InferRequestedOutput("y", binary_data=as_bytes)
        for coding in (None, "gzip", "deflate"):
            codings = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
            for outputs in (None, [wanted]):
                answer = client.infer("net", [given], outputs=outputs, request_id="r", **codings)
                assert answer.as_numpy("y").tobytes() == right(folder, x).tobytes()
                assert answer.get_response()["id"] == "r"
    given = triton.InferInput("x", [5, 3], "FP32").set_data_from_numpy(x[:, :3].copy())
    with pytest.raises(Exception, match=r"input `x` is float32 \[5, 3\]: give `x` float32 \[N, 4\]"):
        client.infer("net", [given])
    with pytest.raises(Exception, match="the fleet knows no model other"):
        client.get_model_metadata("other")
    given = triton.InferInput("x", [5, 4], "FP32").set_data_from_numpy(x)
    several = [client.async_infer("net", [given]) for _ in range(4)]
    assert {each.get_result().as_numpy("y").tobytes() for each in several} == {right(folder, x).tobytes()}
    assert "net" in {each["name"] for each in client.get_model_repository_index()}
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    for asked in (
        client.get_log_settings,
        client.get_trace_settings,
        client.get_system_shared_memory_status,
        client.get_cuda_shared_memory_status,
        lambda: client.load_model("net"),
        lambda: client.update_log_settings({"log_info": False}),
    ):
        with pytest.raises(Exception, match="is not offered here"):
            asked()
    client.close()


def test_a_full_fleet_says_so_at_once(folder: Path, tmp_path: Path) -> None:
    async def registered() -> None:
        async with Broker.connected(fleet.settings, "test") as broker:
            spec = builtin_pipeline("infer").with_model("net")
            await register(broker, fleet.settings, spec, find_models(spec, folder), variant=True)

    async def revisions() -> set[str]:
        async with Broker.connected(fleet.settings, "test") as broker:
            return {*await broker.items(broker.names.pipelines)}

    with Fleet((), tmp_path, queue_bytes=1 << 20) as fleet:  # without workers
        asyncio.run(registered())
        with Gateway(fleet.settings) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as client:
            before = asyncio.run(revisions())
            assert client.get("/v2/models/net/ready").status_code == 503
            assert client.get("/v2/models/net/config").status_code == 200
            assert asyncio.run(revisions()) == before  # those who may read publish nothing
            head = json.loads(BINARY)
            head["inputs"][0] |= {"shape": [100_000, 4], "parameters": {"binary_data_size": 1_600_000}}
            text = json.dumps(head).encode()
            found = client.post(
                "/v2/models/net/infer", content=text + bytes(1_600_000), headers={LENGTH: str(len(text))}
            )
            assert found.status_code == 503, found.text
            assert int(found.headers["retry-after"]) > 0
            full = "the fleet is full: the queue of pipeline infer takes no more now: send it again in a while"
            assert found.json() == {"error": full}


def test_a_withdrawn_pipeline_is_published_again(http: Any, fleet: Fleet) -> None:
    async def withdrawn() -> None:
        async with Broker.connected(fleet.settings, "test") as broker:
            await withdraw_pipeline(broker, "infer")

    assert picked(http, 4).json()["outputs"][0]["data"] == [4]
    asyncio.run(withdrawn())
    assert picked(http, 3).json()["outputs"][0]["data"] == [3]


def test_a_key_says_who_may_do_what_and_is_counted(fleet: Fleet, http: Any) -> None:
    async def keys() -> tuple[str, str]:
        async with Broker.connected(fleet.settings, "test") as broker:
            submit = await make_key(broker, "triton", "studio", [ApiRole.SUBMIT, ApiRole.READ], upload_bytes=1000)
            return submit[1], (await make_key(broker, "reader", "studio", [ApiRole.READ]))[1]

    async def used() -> int:
        async with Broker.connected(fleet.settings, "test") as broker:
            return sum(each.frames for each in (await read_usage(broker, "studio", "0", "9", ())).values())

    submit, reader = asyncio.run(keys())
    with (
        Gateway(fleet.settings, identify=KeyHolders()) as gateway,
        httpx.Client(base_url=gateway.url, timeout=60) as client,
    ):
        url, rows = "/v2/models/net/infer", request([[1] * 4] * 2)
        for key, wanted, status in (
            ("", rows, 401),
            (reader, rows, 403),
            (submit, request([[1] * 4] * 100), 413),
            (submit, rows, 200),
        ):
            found = client.post(url, json=wanted, headers={"Authorization": f"Bearer {key}"} if key else {})
            assert (found.status_code, "error" in found.json()) == (status, status != 200), found.text
        assert client.get("/v2/models/net", headers={"Authorization": f"Bearer {reader}"}).status_code == 200
        assert client.get("/v2/health/ready").status_code == 200
    assert asyncio.run(used()) == 2


def test_an_answer_that_passed_unheard_is_read_from_the_stream(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unheard(waiting: asking._Waiting) -> None:
        """Subscribe to nothing, as while the connection is away."""

    async def answered() -> list[float]:
        async with Broker.connected(fleet.settings, "test") as broker:
            models = Models(broker)
            served = await models.find("pick")
            await models.publish(served)
            medium, asker = TensorMedium(served.spec.decode), asking.Asker(broker)
            arrays = medium.checked({"i": np.arange(5)})
            found = await asker.ask(served.spec, list(medium.segments_of("a", arrays)), "main")
            await asker.close()
            return [float(number) for each in found for number in each.arrays["y"]]

    monkeypatch.setattr(asking, "LOOK_S", 0.05)
    monkeypatch.setattr(asking._Waiting, "open", unheard)
    assert asyncio.run(answered()) == [0, 1, 2, 3, 4]
