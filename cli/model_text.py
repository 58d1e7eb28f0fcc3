"""What `rigflow model` prints of a model: its proposed card, its files, what it takes and gives."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cli.text import say, say_sentence
from schemas.text import size

if TYPE_CHECKING:
    from engines.models.companions.base import Line
    from engines.models.folders import Taken
    from schemas.model import ModelSpec
    from schemas.model_profile import ModelProfile

_NAMING = frozenset(("classify", "detect", "segment", "tag"))  # heads whose numbers have names


def print_card(lines: "Sequence[Line]") -> None:
    """Print the fields of a card as `--set` takes them, each under its reason; the least sure ones come last."""
    reasons = dict.fromkeys((line.sure, line.why) for line in sorted(lines, key=lambda line: -line.sure))
    say("the card, and why; --set FIELD=VALUE changes a line")
    for sure, why in reasons:
        say_sentence(f"{sure.name}: {why}")
        for line in lines:
            if (line.sure, line.why) == (sure, why):
                say_sentence(f"  {line.field} = {_short(line.value)}", indent="    ")
    kinds = {line.value for line in lines if line.field.endswith(".kind")}
    if kinds & _NAMING and not any(line.field.endswith(".labels") for line in lines):
        say_sentence("no file names the classes; labels.txt beside the model, with a line a class, would")
    say("")


def kept_text(about: str, equal: bool | None) -> str:
    """What became of a model; `equal`: whether the one of this name that was there is equal, None where none was."""
    if equal:
        return f"{about} is there already, and equal"
    return f"kept {about}{'' if equal is None else ', in place of another one of this name'}"


def print_files(taken: "Taken") -> None:
    """Print the further files of a model, each with the reason, and the files of its folder that are no part of it."""
    for file, why in taken.why.items():
        say_sentence(f"takes {file.name}, {size(file.size)}: {why}")
    if taken.left_out:
        why = "rigflow runs the model without them"
        say_sentence(f"leaves out {', '.join(taken.left_out)}: {why}")
    if taken.why or taken.left_out:
        say("")


def card_facts(lines: "Sequence[Line]") -> list[dict[str, Any]]:
    """The fields of a card for programs, each with how sure it is, and why."""
    return [{"field": each.field, "value": each.value, "sure": each.sure.name, "why": each.why} for each in lines]


def _short(value: Any) -> str:
    """A value as TOML; of a long list or text the beginning."""
    from engines.models.card_text import toml_value

    if isinstance(value, list) and len(value) > 4:
        return f"[{', '.join(map(toml_value, value[:3]))}, ...]  # {len(value)}"
    text = toml_value(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def described(spec: "ModelSpec", graph_bytes: int) -> list[str]:
    """What a kept model is made of, what it takes and what it gives, a line each."""
    from schemas.model import describe

    lines = [f"identity {spec.identity[:16]}", f"file graph {spec.sha256[:16]} {size(graph_bytes)}"]
    lines += [f"file {file.name} {file.sha256[:16]} {size(file.size)}" for file in spec.files]
    lines += [f"takes {tensor.name} {describe(tensor.dtype, tensor.shape)}" for tensor in spec.inputs]
    lines += [f"gives {tensor.name} {describe(tensor.dtype, tensor.shape)}" for tensor in spec.outputs]
    return lines


def costs(profiles: "Sequence[ModelProfile]") -> list[str]:
    """What a model costs on devices, a line for each; what was tried there is left to `rigflow profile`."""
    return [
        f"on {each.device_name}: {'; '.join(f'{subject} {statement}' for subject, statement in each.rows()[:2])}"
        for each in profiles
    ]
