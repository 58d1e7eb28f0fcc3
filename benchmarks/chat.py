"""`python -m benchmarks.chat FOLDER`: tokens a second of one worker beside GenAI's own loops over the same prompts.

Each has one thread, or with `--device cuda:0` the GPU. `engine` gives all prompts to GenAI's engine at once, as its own
examples do, which takes four at a time. `rows` is a plain loop over generators of as many rows as a worker has places
for bulk. `rigflow` runs `chat` on a fleet of one worker, through the broker, from the file of prompts to the file of
answers. No token ends an answer, so that all write as many tokens in as many rows; the token that pads is one that no
question has, because GenAI takes it for padding wherever it is. They take turns for some rounds, because a busy machine
is not as fast from minute to minute: the ratio of each round counts, and the CPU seconds of all processes for 1,000
tokens. Then interactive questions are asked while bulk jobs wait, `--bulk 100 300`, whose answers have `--bulk-tokens`,
and their time to the first token is compared with that on the idle worker. `--rounds 0` measures that alone.
"""

import argparse
import asyncio
import itertools
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import nats
import numpy as np

from benchmarks.measure import cpu_s, tree
from engines.generation.answering import Limits
from engines.inference.genai_folder import MAIN, limits_of, overlay_of
from engines.inference.genai_library import library
from pipelines.registry import builtin_pipeline
from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec
from schemas.subjects import HEADER_JOB, HEADER_TYPE, Names
from tests.cli import rigflow
from tests.fleet import ONE_WORKER, Fleet
from workers.definitions import find_models

K = TypeVar("K")
QUESTIONS = ("What is the capital of", "Write a line about", "Name three things that people know of", "Explain")
ASKED = 9  # interactive jobs on an idle worker, and behind bulk
ANSWER = 8  # tokens of the answer to an interactive question, so that the next one finds bulk jobs waiting, too
SUBJECTS = ("France", "the sea", "music", "maths", "winter", "a train", "the market", "a river")


def main() -> None:
    """Measure, and print a line of JSON for each round and one for all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chat", description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder of ONNX Runtime GenAI")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=24, help="most tokens of an answer")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--places", type=int, default=0, help="answers at a time; 0: as many as a worker has")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda:0 with onnxruntime-genai-cuda")
    parser.add_argument("--bulk", type=int, nargs="+", default=[100], help="bulk jobs, in rising numbers")
    parser.add_argument("--bulk-tokens", type=int, default=0, help="of the answer to each; 0: as `--tokens`")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rigflow-chat-") as scratch:
        os.environ["HOME"] = scratch  # the model is added there
        shape = f'inputs.0.shape=["N",{given.context}]'
        prompts = [f"{QUESTIONS[n % 4]} {SUBJECTS[n // 4 % 8]}?" for n in range(given.prompts)]
        given.folder = without_end(given.folder, Path(scratch) / "folder", prompts)
        added = rigflow("model", "add", given.folder, "--name", "chat-model", "--yes", "--set", shape, HOME=scratch)
        if added.returncode:
            raise SystemExit(added.stderr)
        measure(given, prompts, Path(scratch))


def without_end(folder: Path, copy: Path, prompts: Sequence[str]) -> Path:
    """A copy of a folder whose answers do not end: the last token that no prompt has is said to end and to pad them."""
    shutil.copytree(folder, copy)
    config, og = json.loads((folder / MAIN).read_text()), library()
    tokenizer = og.Tokenizer(og.Config(str(folder)))
    known = {int(token) for prompt in prompts for token in question_of(tokenizer, prompt)}
    last = max(set(range(config["model"]["vocab_size"])) - known)
    config["model"] |= {"eos_token_id": last, "pad_token_id": last}
    (copy / MAIN).write_text(json.dumps(config))
    return copy


def measure(given: argparse.Namespace, prompts: Sequence[str], scratch: Path) -> None:
    """Let both take turns, and compare them."""
    spec = builtin_pipeline("chat").with_fields({"chat.max_tokens": given.tokens})
    [(card, content)] = find_models(spec, None).values()
    on_gpu = given.device != "cpu"
    kv_bytes = limits_of(content, card, 1 << 60, on_gpu).slot_bytes * (given.places or 1000)  # type: ignore[arg-type]
    limits = limits_of(content, card, kv_bytes, on_gpu)  # type: ignore[arg-type]
    loop = Loop(given.folder, limits, given.tokens, given.device)
    found: list[list[float]] = []
    by_cpu: list[list[float]] = []
    with Fleet(ONE_WORKER, scratch / "cache", devices=(given.device,), kv_bytes=float(kv_bytes)) as fleet:
        asked(fleet, spec, prompts, scratch, "warm")
        loop.batched(prompts)
        for number in range(given.rounds):
            rates: dict[str, float] = {}
            spent: dict[str, float] = {}
            texts: dict[str, list[str]] = {}
            for name, call in (
                ("engine", lambda: loop.together(prompts)),
                ("rows", lambda: loop.batched(prompts)),
                ("rigflow", lambda: asked(fleet, spec, prompts, scratch, f"round-{number}")),  # noqa: B023
            ):
                before = used_s()
                rates[name], texts[name], written = call()
                spent[name] = (used_s() - before) / written * 1000
            found.append([rates["rigflow"] / rates[name] for name in ("engine", "rows")])
            by_cpu.append([spent[name] / spent["rigflow"] for name in ("engine", "rows")])
            print(json.dumps(round_of(rates, spent, texts, min(loop.rows, len(prompts)))), flush=True)
        firsts = asyncio.run(first_tokens(fleet, prompts, given.bulk, given.bulk_tokens or given.tokens))
    medians = {
        f"{what}_to_{name}": round(statistics.median(each), 3)
        for what, ratios in (("ratio", found), ("cpu_ratio", by_cpu))
        for name, each in zip(("engine", "rows"), zip(*ratios, strict=True), strict=bool(ratios))
    }
    load = round(os.getloadavg()[0], 1)
    print(json.dumps({**medians, **firsts, "load": load}), flush=True)


def round_of(
    rates: dict[str, float], spent: dict[str, float], texts: dict[str, list[str]], rows: int
) -> dict[str, object]:
    """One round as it is printed: tokens a second, CPU seconds a 1,000 tokens, and the answers that are equal."""
    others = ("engine", "rows")
    return {
        "tokens_per_s": rounded(rates, 1),
        "cpu_s_per_1000_tokens": rounded(spent, 2),
        "ratio_to": rounded({name: rates["rigflow"] / rates[name] for name in others}, 3),
        "equal_to": {
            name: sum(mine == theirs for mine, theirs in zip(texts["rigflow"], texts[name], strict=True))
            for name in others
        },
        "ms_a_step": {name: round(1000 * rows / rates[name], 2) for name in ("rows", "rigflow")},
        "rows": rows,
    }


def rounded(values: dict[K, float], digits: int) -> dict[K, float]:
    """Numbers as they are printed."""
    return {name: round(each, digits) for name, each in values.items()}


def used_s() -> float:
    """CPU seconds of this process, the broker and the workers."""
    return sum(cpu_s(tree()).values())


def question_of(tokenizer: Any, prompt: str) -> Any:
    """The tokens of a conversation that begins with a prompt."""
    messages = json.dumps([{"role": "user", "content": prompt}])
    return tokenizer.encode(tokenizer.apply_chat_template(messages, add_generation_prompt=True))


class Loop:
    """GenAI's own loops, over a model with the limits and on the device that the worker has."""

    def __init__(self, folder: Path, limits: Limits, tokens: int, device: str) -> None:
        self._og: Any = library()
        self.rows = limits.slots - limits.slots // 9
        config = self._og.Config(str(folder))
        config.overlay(json.dumps(overlay_of(limits)))
        config.clear_providers()
        if device != "cpu":
            config.append_provider("cuda")
            config.set_provider_option("cuda", "device_id", device.rpartition(":")[2])
        self._model, self._tokens = self._og.Model(config), tokens
        self._tokenizer, self._engine = self._og.Tokenizer(self._model), self._og.Engine(self._model)

    def _asked(self, prompt: str) -> Any:
        return question_of(self._tokenizer, prompt)

    def batched(self, prompts: Sequence[str]) -> tuple[float, list[str], int]:
        """Tokens a second of generators of as many rows as a worker has places for bulk, one after the other, the
        answers, and the number of tokens.
        """
        began, count, answers = time.monotonic(), 0, []
        for first in range(0, len(prompts), self.rows):
            questions = [np.asarray(self._asked(each)) for each in prompts[first : first + self.rows]]
            rows = np.full((len(questions), max(map(len, questions))), self._tokenizer.pad_token_id, np.int32)
            for row, question in zip(rows, questions, strict=True):
                row[: len(question)] = question
            params, tokens = self._og.GeneratorParams(self._model), []
            params.set_search_options(max_length=rows.shape[1] + self._tokens, do_sample=False, batch_size=len(rows))
            generator = self._og.Generator(self._model, params)
            generator.append_tokens(rows)
            while not generator.is_done():
                generator.generate_next_token()
                tokens.append(generator.get_next_tokens())
            count += len(rows) * len(tokens)
            answers += [self._tokenizer.decode(answer) for answer in np.stack(tokens, 1)]
        return count / (time.monotonic() - began), answers, count

    def together(self, prompts: Sequence[str]) -> tuple[float, list[str], int]:
        """Tokens a second of all answers at once, the answers, and the number of tokens."""
        began, streams, texts, count = time.monotonic(), [], [""] * len(prompts), 0
        places: dict[int, int] = {}
        requests = []
        for place, prompt in enumerate(prompts):
            request = self._engine.create_request()
            options = self._og.TurnOptions(request)
            options.set_max_generated_tokens(self._tokens)
            options.set_do_sample(False)
            request.begin_turn(self._asked(prompt), options)
            places[id(request)] = place
            requests.append(request)
            streams.append(self._tokenizer.create_stream())
        events = self._engine.create_event_buffer(64)
        while self._engine.has_pending_requests():
            for event in self._engine.run(events):
                if event.flags & self._og.EngineEventFlags.TOKEN:
                    place = places[id(event.request)]
                    texts[place] += streams[place].decode(event.token)
                    count += 1
        for request in requests:
            request.close()
        return count / (time.monotonic() - began), texts, count


def questions(path: Path, prompts: Sequence[str]) -> Path:
    """A file of prompts."""
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return path


def asked(
    fleet: Fleet, spec: PipelineSpec, prompts: Sequence[str], scratch: Path, name: str
) -> tuple[float, list[str], int]:
    """Tokens a second of a job, from its file to its result, the answers, and the number of tokens."""
    path, began = questions(scratch / f"{name}.jsonl", prompts), time.monotonic()
    [outcome] = fleet.run(spec, [path], scratch / "out")
    seconds = time.monotonic() - began
    if not outcome.ok:
        raise SystemExit(f"{outcome.error or outcome.done}")
    rows = [json.loads(line) for line in (scratch / "out" / f"{name}.chat.jsonl").read_text().splitlines()]
    written = sum(row["tokens"] for row in rows)
    return written / seconds, [row["text"] for row in rows], written


async def first_tokens(
    fleet: Fleet, prompts: Sequence[str], bulk: Sequence[int], tokens: int
) -> dict[str, float | dict[int, float]]:
    """Seconds from an interactive question to its first text: on the idle worker, and behind so many bulk jobs."""
    client = await nats.connect(fleet.settings.nats)
    stream = client.jetstream()
    numbers = itertools.count()

    async def ask(job: str, prompt: str, most: int, priority: Priority) -> None:
        body = json.dumps({"prompt": prompt, "max_tokens": most}).encode()
        await stream.publish(Names().media("main", "chat", priority), body, headers={HEADER_JOB: job})

    async def first() -> float:
        job, began = f"person-{next(numbers)}", time.monotonic()
        deltas = await client.subscribe(f"rigflow.deltas.main.chat.{job}")
        results = await client.subscribe(f"rigflow.results.main.chat.{job}")
        await ask(job, f"{prompts[0]} {job}", ANSWER, Priority.INTERACTIVE)
        await deltas.next_msg(120)
        seconds = time.monotonic() - began
        while (await results.next_msg(120)).headers[HEADER_TYPE] != "done":
            pass
        return seconds

    await first()  # to warm up
    idle = statistics.median([await first() for _ in range(ASKED)])
    done = await client.subscribe("rigflow.results.main.chat.*")
    behind: dict[int, float] = {}
    sent = ended = 0
    for count in bulk:
        while sent - ended < count:
            await ask(f"bulk-{sent}", f"{prompts[sent % len(prompts)]} {sent}", tokens, Priority.BULK)
            sent += 1
        while (await done.next_msg(120)).headers[HEADER_TYPE] != "done":  # all places are taken now
            pass
        behind[count] = statistics.median([await first() for _ in range(ASKED)])
        ends = [message.subject for message in await gathered(done) if message.headers[HEADER_TYPE] == "done"]
        ended += 1 + sum("bulk-" in subject for subject in ends)
    await client.close()
    return {
        "first_token_idle_s": round(idle, 4),
        "first_token_behind_bulk_s": rounded(behind, 4),
        "first_token_ratio": rounded({count: seconds / idle for count, seconds in behind.items()}, 2),
        "bulk_left": sent - ended,
    }


async def gathered(subscription: Any) -> list[Any]:
    """What has come on a subscription until now."""
    found = []
    while subscription.pending_msgs:
        found.append(await subscription.next_msg(1))
    return found


if __name__ == "__main__":
    main()
