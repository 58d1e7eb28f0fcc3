"""Odd requests to the gateway, by a seed: headers, forms, ranges, paths, parameters and JSON that no client sends."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

_Body: TypeAlias = Callable[[], tuple[list[tuple[str, Any]], bytes]]

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "get", "FOO")
PATHS = (
    "/api/v1/jobs", "/api/v1/jobs/known", "/api/v1/jobs/known/results", "/api/v1/jobs/known/results.zip",
    "/api/v1/jobs/known/results/{file}", "/api/v1/jobs/known/events", "/api/v1/uploads", "/api/v1/uploads/known",
    "/api/v1/pipelines", "/api/v1/pipelines/fingerprint", "/api/v1/models", "/api/v1/models/net",
    "/api/v1/dead-letters", "/api/v1/dead-letters/1", "/api/v1/workers", "/api/v1/rigs", "/api/v1/fleet",
    "/api/v1/session", "/livez", "/readyz", "/v1/models", "/v1/models/net", "/v1/chat/completions",
    "/v1/completions", "/v1/embeddings", "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/translations",
    "/v1/images/edits", "/v1/images/generations", "/v2", "/v2/models/net", "/v2/models/net/infer",
    "/v2/models/net/versions/1/infer", "/v2/models/net/config", "/v2/models/stats", "/v2/repository/index",
    "/v2/health/ready", "/v2/systemsharedmemory/status", "/", "/static/app.js",
)  # fmt: skip
TEXTS = (
    "", "a", "known", "../../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%00", "a\x00b", "ü", "中文", "\u202e", "💥",
    "*", ">", "a.b", "a b", "$JS.API.>", "-1", "0", "1e309", "NaN", "9" * 400, "x" * 5000, "%", "%zz", "';--",
    "<script>", "{}", "[]", "null", "true", "\r\nX-Injected: 1", "fingerprint", "net", "//evil.example", "C:\\x",
    ".", "..", "~", "\t", "+", "&", "=",
)  # fmt: skip
RANGES = (
    "bytes=0-0", "bytes=-1", "bytes=5-", "bytes=9-2", "bytes=0-0,2-3", "bytes=", "bytes=-", "bytes=a-b",
    "items=0-1", "bytes=99999999999999999999-", "bytes=-0", "bytes=0-99999999999999999999", "bytes = 0 - 1",
    "bytes=٣-٤", "bytes=--1",
)  # fmt: skip
HEADERS = (
    "Idempotency-Key", "Last-Event-ID", "Range", "If-Range", "If-None-Match", "Content-Type", "Content-Encoding",
    "Accept", "Accept-Encoding", "Authorization", "X-API-Key", "Cookie", "Origin", "Host", "Tus-Resumable",
    "Upload-Length", "Upload-Offset", "Upload-Metadata", "Upload-Checksum", "Inference-Header-Content-Length",
    "X-Rigflow-CSRF", "Expect", "traceparent", "X-Forwarded-For", "X-HTTP-Method-Override", "Connection",
    "Content-Disposition", "TE", "Upgrade",
)  # fmt: skip
KINDS = (
    "application/json", "application/json; charset=utf-16", "text/plain", "application/octet-stream",
    "application/zip", "application/offset+octet-stream", "multipart/form-data", "multipart/form-data; boundary=",
    "application/xml", "x", "", "multipart/form-data; boundary=" + "b" * 300, "application/x-www-form-urlencoded",
    "image/png; a=\x01",
)  # fmt: skip
PARAMETERS = (
    "pipeline", "name", "model", "set", "stream", "priority", "url", "limit", "cursor", "state", "after", "job",
    "odd",
)  # fmt: skip
BODIES: tuple[dict[str, Any], ...] = (
    {"model": "net", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3, "stream": False},
    {"model": "net", "prompt": ["a", "b"], "n": 2},
    {"model": "net", "input": ["a", {"image": "eA=="}], "encoding_format": "base64"},
    {"model": "net", "input": "read this", "voice": "alloy", "response_format": "wav"},
    {"prompt": "a dog", "n": 1, "size": "64x64"},
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]},
    {"key": "rf_000000000000_x"},
)


class OddRequests:
    """Makes requests as bytes, the same for the same seed. `file` is a result of the job `known`."""

    def __init__(self, seed: int, file: str) -> None:
        self._random = random.Random(seed)
        self._file = file

    def request(self) -> tuple[str, bytes, bool]:
        """The path of a request, all its bytes, and whether it may wait for more of them."""
        chance = self._random
        path = chance.choice(PATHS)
        fitting, kinds = self._fitting(path)
        method = chance.choice(METHODS) if chance.random() < 0.1 else chance.choice(fitting)
        path = self._path(path)
        every = (self._plain, self._json, self._form, self._tus, self._ranges)
        headers, body = chance.choice(every if chance.random() < 0.1 else kinds)()
        if chance.random() < 0.25:
            headers += [self._header() for _ in range(chance.randint(1, 4))]
        headers = [(name, value) for name, value in headers if value is not None]
        has_no_end = False
        if chance.random() < 0.08:
            length = chance.choice((0, len(body) + 1, len(body) - 1, "x", -1, 1 << 62))
            headers.append(("Content-Length", str(length)))
            has_no_end = isinstance(length, int) and length > len(body)
        elif chance.random() < 0.05:
            headers.append(("Transfer-Encoding", chance.choice(("chunked", "gzip", "chunked, chunked"))))
            has_no_end = True
        else:
            headers.append(("Content-Length", str(len(body))))
        if not any(name == "Host" for name, _ in headers) and chance.random() < 0.98:
            headers.insert(0, ("Host", "127.0.0.1"))
        head = f"{method} {path} HTTP/1.{chance.choice((1, 1, 1, 0))}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers)
        return path, head.encode("utf-8", "surrogateescape") + b"Connection: close\r\n\r\n" + body, has_no_end

    def _fitting(self, path: str) -> tuple[Sequence[str], Sequence[_Body]]:
        """Methods and kinds of bodies that a path has."""
        if "/uploads" in path:
            return ("POST", "PATCH", "PATCH", "HEAD", "DELETE", "GET"), (self._tus,)
        if path.startswith("/v1/") and "/models" not in path:
            is_form = "transcriptions" in path or "translations" in path or "edits" in path
            return ("POST",), (self._form if is_form else self._json,)
        if path.endswith(("/infer", "/index", "/session")):
            return ("POST",), (self._json,)
        if path == "/api/v1/jobs":
            return ("POST", "POST", "GET"), (self._form, self._plain)
        if path.endswith("/models"):
            return ("GET", "POST"), (self._form, self._plain)
        return ("GET",), (self._ranges, self._plain)

    def _path(self, given: str) -> str:
        chance = self._random
        path = given.replace("{file}", self._file)
        if chance.random() < 0.3:
            parts = path.split("/")
            parts[chance.randrange(len(parts))] = self._quoted(chance.choice(TEXTS))
            path = "/".join(parts)
        if chance.random() < 0.05:
            path = chance.choice(("//", "/.", "/..", "", "http://x.example", "*", "?", "#", "\x7f", "/%2e%2e/")) + path
        if chance.random() < 0.3:
            given = [
                (chance.choice(PARAMETERS), self._quoted(chance.choice(TEXTS))) for _ in range(chance.randint(1, 4))
            ]
            path += "?" + "&".join(f"{name}={value}" for name, value in given)
        return path or "/"

    def _quoted(self, text: str) -> str:
        """A text in a path: as it is, or in percent-encoding."""
        if self._random.random() < 0.2:
            return text.replace("\r", "").replace("\n", "").replace(" ", "+")
        return "".join(each if each.isalnum() and each.isascii() else f"%{ord(each) % 256:02x}" for each in text)

    def _header(self) -> tuple[str, str]:
        chance = self._random
        value = chance.choice((*TEXTS, *RANGES, *KINDS))
        return chance.choice(HEADERS), value.replace("\r\n", " ") if chance.random() < 0.9 else value

    def _plain(self) -> tuple[list[tuple[str, Any]], bytes]:
        chance = self._random
        return [("Content-Type", chance.choice(KINDS))], chance.choice((b"", b"no media", chance.randbytes(700)))

    def _ranges(self) -> tuple[list[tuple[str, Any]], bytes]:
        chance = self._random
        return [("Range", chance.choice(RANGES)), ("If-Range", chance.choice((None, '"x"', "x", "")))], b""

    def _tus(self) -> tuple[list[tuple[str, Any]], bytes]:
        chance = self._random
        numbers = ("0", "1", "100", "-1", "x", "1e3", "9" * 30, "", "٣")
        headers = [
            ("Tus-Resumable", chance.choice(("1.0.0", "1.0.0", "0.2", ""))),
            ("Upload-Length", chance.choice((None, *numbers))),
            ("Upload-Offset", chance.choice((None, *numbers))),
            (
                "Upload-Metadata",
                chance.choice((None, "filename YQ==", "a", "pipeline !!", "pipeline bmV0,,", "x " * 50)),
            ),
            ("Upload-Checksum", chance.choice((None, "sha1 AAAA", "md5 AA==", "sha256", "crc32 \x01"))),
            ("Content-Type", chance.choice(("application/offset+octet-stream", "text/plain"))),
        ]
        return headers, chance.randbytes(chance.choice((0, 1, 100, 101)))

    def _json(self) -> tuple[list[tuple[str, Any]], bytes]:
        chance = self._random
        given = json.loads(json.dumps(chance.choice(BODIES)))
        for _ in range(chance.randint(0, 3)):
            self._spoil(given)
        body = json.dumps(given, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
        if chance.random() < 0.3:
            body = chance.choice(self._breakers())(body)
        return [("Content-Type", "application/json" if chance.random() < 0.9 else chance.choice(KINDS))], body

    def _spoil(self, given: Any) -> None:
        """Change one value somewhere in it."""
        chance = self._random
        odd = [None, True, -1, 0.5, 1e308, 1 << 70, [], {}, [[]], [1, "a", None], {"a": {"b": 1}}, *TEXTS]
        at = given
        while True:
            keys: list[Any] = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys or (isinstance(at, dict) and chance.random() < 0.15):
                if isinstance(at, dict):
                    at[chance.choice(TEXTS)] = chance.choice(odd)
                else:
                    at.append(chance.choice(odd))
                return
            key = chance.choice(keys)
            if isinstance(at[key], dict | list) and chance.random() < 0.7:
                at = at[key]
                continue
            if isinstance(at, dict) and chance.random() < 0.2:
                del at[key]
            else:
                at[key] = chance.choice(odd)
            return

    def _breakers(self) -> list[Callable[[bytes], bytes]]:
        chance = self._random
        at = chance.random()
        return [
            lambda body: body[: int(at * len(body))],
            lambda body: body[: int(at * len(body))] + chance.randbytes(3) + body[int(at * len(body)) :],
            lambda body: b"[" * 20_000 + body,
            lambda body: b'{"a":' * 5_000,
            lambda body: body + body,
            lambda body: b"\xff\xfe" + body,
            lambda body: body.replace(b"1", b"NaN").replace(b"2", b"-Infinity"),
            lambda body: body.decode("utf-8", "replace").encode("utf-16"),
            lambda body: b"",
        ]

    def _form(self) -> tuple[list[tuple[str, Any]], bytes]:
        chance = self._random
        boundary = chance.choice(("b", "b" * 70, "b b", "--", "\x01"))
        pieces = []
        for _ in range(chance.randint(0, 5)):
            name, text = chance.choice((*PARAMETERS, "file", "image", "prompt", "stream")), chance.choice(TEXTS)
            head = f'Content-Disposition: form-data; name="{name}"'
            if chance.random() < 0.5:
                head += chance.choice(
                    (f'; filename="{text}"', f"; filename*=UTF-8''{text}", "; filename", ';filename="')
                )
            if chance.random() < 0.3:
                head += f"\r\nContent-Type: {chance.choice(KINDS)}"
            if chance.random() < 0.1:
                head = chance.choice(("", "no header", "A" * 9000 + ": b", ": x", "Content-Disposition: attachment"))
            pieces.append(f"--{boundary}\r\n{head}\r\n\r\n{chance.choice(TEXTS)}\r\n")
        body = ("".join(pieces) + f"--{boundary}--\r\n").encode("utf-8", "surrogatepass")
        if chance.random() < 0.3:
            body = body[: int(chance.random() * len(body))]
        kind = f"multipart/form-data; boundary={boundary}" if chance.random() < 0.9 else chance.choice(KINDS)
        return [("Content-Type", kind)], body
