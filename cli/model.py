"""`rigflow model`: adds models, shows them, tries them on a picture."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from cli.answers import answers, spoken
from cli.help import Commands
from cli.interrupts import is_interrupt
from cli.model_text import card_facts, costs, described, kept_text, print_card, print_files
from cli.model_trial import try_model
from cli.options import Json, SettingsFile, ends_well, settings_from
from cli.text import cell, say, say_json, sentence, stdout, warn
from schemas.errors import ExitCode
from schemas.text import size

if TYPE_CHECKING:
    from cli.tables import Given
    from engines.models.files import NewFiles
    from engines.models.proposal import Proposal
    from engines.models.store import Found

app = Commands(
    name="model",
    help="Add models, show them, try them on a picture.\n\nExample: rigflow model add yolov8n.onnx",
)

Name: TypeAlias = Annotated[str, typer.Argument(help="A model's name, as `rigflow model list` has it.")]
Show: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="File for the picture with the answer drawn. Default: in the cache folder.", metavar="FILE"),
]


@app.command()
@ends_well
def add(
    model: Annotated[
        Path, typer.Argument(help="A folder, or an .onnx, .param, .pth or .safetensors file.", metavar="FILE")
    ],
    name: Annotated[str, typer.Option(help="What pipelines call it. Default: the file's name.")] = "",
    given: Annotated[
        list[str] | None,
        typer.Option("--set", help="A field of its card, say inputs.0.mean=[0.5]; repeat it.", metavar="FIELD=VALUE"),
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="Its model card. Default: the .toml of its name beside it.", metavar="FILE")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="A picture to try it on. Default: a drawn one.", metavar="FILE")
    ] = None,
    denoise: Annotated[
        float | None, typer.Option(help="Of realesr-general-x4v3: from 0, which keeps noise, to 1.", metavar="STRENGTH")
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            help="A LoRA to merge into a Stable Diffusion, a .safetensors file; repeat it.", metavar="FILE[:STRENGTH]"
        ),
    ] = None,
    sound: Annotated[Path | None, typer.Option(help="Speech of a voice to clone, 1 to 30 s.", metavar="FILE")] = None,
    text: Annotated[
        str, typer.Option(help="Of a ZipVoice: what is said in --sound, word by word.", metavar="WORDS")
    ] = "",
    consent: Annotated[
        Path | None, typer.Option(help="What allows the voice to be cloned; results name it.", metavar="FILE")
    ] = None,
    show: Show = None,
    yes: Annotated[bool, typer.Option("--yes", help="Keep it without a question.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Propose and try only; keep nothing.")] = False,
    as_json: Json = False,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Propose a model's card, try the model on a picture, and keep both.

    The card says how a picture becomes the model's input, and what its outputs mean. It is read from the file, from
    files beside it and from its shapes. "certain": a file or the graph says so. "likely": models of this form have it.
    "guess": most such models have it; compare it with the page that the model comes from. Then look at the picture with
    the answer drawn. A pipeline runs the model by its name: `model = "yolov8n"` in an infer stage.

    --denoise 0.5 mixes realesr-general-x4v3 half and half with realesr-general-wdn-x4v3, a file beside it. The model
    is then called realesr-general-x4v3-denoise-0.5.

    --lora style.safetensors:0.8 changes the weights of a Stable Diffusion by a LoRA, with that strength; 1 without one.

    --sound ada.wav --text "Words of it." --consent ada.txt clones the voice of a sound with a folder of ZipVoice, and
    without --text with one of Pocket TTS. The consent of the person is kept with the model, and results name it.

    Weights in files beside the ONNX file belong to the model. So do the tokenizer, settings and further graphs of a
    folder, if their names are known.

    Example: rigflow model add yolov8n.onnx --picture street.jpg --show boxes.png
    """
    from engines.content import graph_of, size_of
    from engines.models.catalogue import travelling
    from engines.models.companions.base import Sure
    from engines.models.proposal import propose
    from engines.models.store import check_name, find, is_kept, keep, new_files
    from engines.registry import load
    from schemas.given_fields import parse_fields

    changes = {**parse_fields(given or [], "--set", "inputs.0.colours=bgr"), **({"name": name} if name else {})}
    with new_files() as new, spoken(as_json) as (speak, spoke), answers(as_json) as answer:
        voice = (sound, text, consent) if sound is not None or text or consent is not None else None
        found, fields = _cloned(model, *voice, new) if voice else _changed(find(model, new), denoise, lora or [], new)
        changes = {**fields, **changes}
        proposal = _overridden(propose(found.path, found.content, found.name), found.path, card, changes)
        sha256 = hashlib.sha256(graph_of(found.content)).hexdigest()
        made = proposal.card().model_copy(update={"sha256": sha256, "files": found.taken.files})
        if not as_json:
            print_card(proposal.lines)
            print_files(found.taken)
        check_name(made.name)
        if made.backend is not None:
            load("backends", made.backend)
        spec, content = travelling(found.path, made, found.content)
        shown = show or settings_from(settings_file).cache_folder / "previews" / f"{spec.name}.png"
        try_model(spec, content, picture, shown, speak)
        facts = {"name": spec.name, "version": spec.version, "sha256": spec.sha256, "nbytes": size_of(found.content)}
        facts |= {"card": card_facts(proposal.lines), "answer": spoke}
        if dry_run:
            answer("", **facts, kept=False)
            return ExitCode.OK
        sure = all(line.sure is Sure.certain for line in proposal.lines)
        equal = is_kept(made, found.content)
        if not (yes or sure or as_json or equal) and not _agreed(spec.name, equal is False):
            warn("not kept; change fields by --set FIELD=VALUE, or write a card and give it by --card")
            return ExitCode.SOME_FAILED
        keep(made, found.content)
        about = f"{spec.name}@{spec.version}  {spec.sha256[:16]}  {size(size_of(found.content))}"
        answer(kept_text(about, equal), **facts, kept=True, replaced=equal is False)
    return ExitCode.OK


@app.command("list")
@ends_well
def list_(as_json: Json = False) -> ExitCode:
    """List the models kept here and those of rigflow, with their sizes.

    Example: rigflow model list
    """
    from cli.tables import list_of
    from engines.models.catalogue import builtin_models
    from engines.models.store import kept
    from schemas.model_files import bytes_of

    rows: list[tuple[Given, ...]] = []
    facts: list[dict[str, Any]] = []
    for name, path, card in kept():
        facts.append({"name": name, "path": str(path), "card": card.model_dump(mode="json") if card else None})
        heads = ", ".join(head.kind for head in card.heads) if card else "its card cannot be read"
        files = card.files if card else ()
        total = size(path.stat().st_size + bytes_of(files))
        rows.append((cell(name), card.version if card else "", sentence(heads), str(1 + len(files)), total, ""))
    for name in builtin_models():
        rows.append((name, "", "", "", "", "comes with rigflow"))
        facts.append({"name": name, "path": None, "card": None})
    if as_json:
        say_json(facts)
    else:
        titles = ("model", "version", "heads", "files", "size", "")
        unless = dict.fromkeys(titles[1:], "")
        stdout().print(list_of(titles, rows, left=3, unless=unless, words=("",), named=("model",)))
    return ExitCode.OK


@app.command()
@ends_well
def show(name: Name, as_json: Json = False, settings_file: SettingsFile = None) -> ExitCode:
    """Show a model's card, files, hash, inputs and outputs, and what it costs on this machine's devices.

    Example: rigflow model show yolov8n
    """
    from engines.content import graph_of
    from engines.inference.own_kernels import form_of
    from engines.models.card_text import card_toml
    from engines.models.catalogue import builtin_model, builtin_models, load_model
    from engines.models.store import card_text, kept_path
    from engines.profiling.store import kept_model_profiles

    spec, content = builtin_model(name) if name in builtin_models() else load_model(kept_path(name))
    text = card_toml(spec) if name in builtin_models() else card_text(name)
    profiles = kept_model_profiles(settings_from(settings_file).cache_folder, spec.identity)
    form = form_of(content, spec.name)
    if as_json:
        facts = {"identity": spec.identity, "nbytes": len(graph_of(content))}
        facts |= {"own_kernels": form, "profiles": [each.model_dump(mode="json") for each in profiles]}
        say_json(spec.model_dump(mode="json") | facts)
        return ExitCode.OK
    say(text.rstrip("\n") + "\n", keep="\n")
    kernels = f"own kernels: {f'as {form}, in float16 on GPUs since Ampere' if form else 'none for its form'}"
    for line in [*described(spec, len(graph_of(content))), kernels, *costs(profiles)]:
        say(f"# {line}")
    return ExitCode.OK


@app.command("test")
@ends_well
def try_on(
    name: Name,
    picture: Annotated[
        Path | None,
        typer.Argument(help="A picture, or sound if it takes that. Default: a drawn one.", metavar="FILE"),
    ] = None,
    show: Show = None,
    as_json: Json = False,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Run a model on a picture or a sound; print or draw its answer.

    Example: rigflow model test yolov8n street.jpg --show boxes.png
    """
    from engines.models.catalogue import load_model
    from engines.models.store import kept_path

    spec, body = load_model(kept_path(name))
    drawn = show or settings_from(settings_file).cache_folder / "previews" / f"{name}.png"
    with spoken(as_json) as (speak, spoke):
        try_model(spec, body, picture, drawn, speak)
    if as_json:
        say_json({"name": name, "answer": spoke, "file": str(drawn) if f"drawn in {drawn}" in spoke else None})
    return ExitCode.OK


@app.command()
@ends_well
def remove(name: Name, as_json: Json = False) -> ExitCode:
    """Delete a kept model, and its files that no other model uses.

    Jobs that were published with it have a copy of their own.

    Example: rigflow model remove yolov8n
    """
    from engines.models.store import remove as forget

    forget(name)
    with answers(as_json) as answer:
        answer(f"removed {name}", name=name)
    return ExitCode.OK


def _agreed(name: str, replaces: bool) -> bool:
    """Ask at a terminal whether a model is to be kept; where there is none, the answer is yes."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    try:
        place = f" in place of the {name} that is there" if replaces else ""
        return typer.confirm(f"keep it as {name}{place}?", True)
    except typer.Abort as error:  # the end of the input, or Ctrl-C
        if is_interrupt(error):
            raise
        return False


def _cloned(
    model: Path, sound: Path | None, text: str, consent: Path | None, new: "NewFiles"
) -> "tuple[Found, dict[str, str]]":
    """A model of a folder that speaks with the voice of a sound, and the fields of its card that say so."""
    from engines.models.cloning import cloned

    return cloned(model, sound, text, consent, new)


def _changed(
    found: "Found", denoise: float | None, lora: Sequence[str], new: "NewFiles"
) -> "tuple[Found, dict[str, str]]":
    """The model mixed for a denoise strength, or with LoRAs in it, and the fields of its card that say so."""
    fields: dict[str, str] = {}
    if denoise is not None:
        from engines.models.mixing import denoised

        found, fields = denoised(found, denoise, new)
    if lora:
        from engines.models.lora_merge import with_loras

        found, more = with_loras(found, lora, new)
        fields = {**fields, **more}
    return found, fields


def _overridden(proposal: "Proposal", path: Path, card: Path | None, given: Mapping[str, Any]) -> "Proposal":
    """The proposal with the fields of a card, and over them those that were given by `--set`."""
    from engines.models.store import card_fields

    if card is None and (beside := path.with_suffix(".toml")).is_file():
        card = beside
    if card is not None:
        fields = card_fields(card, [port.name for port in proposal.model.inputs])
        proposal = proposal.written(
            {key: value for key, value in fields.items() if key not in ("sha256", "files")}, card.name
        )
    return proposal.changed(given, "given here") if given else proposal
