"""`rigflow engine`: models compiled for kinds of GPUs: build, test, measure and share them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from cli.answers import answers
from cli.engine_bench import bench
from cli.engine_share import Keys, at_fleet, gpus_of, pull, push, store_of
from cli.export import export
from cli.help import Commands
from cli.options import Credentials, Json, NatsUrl, SettingsFile, ends_well, settings_from
from cli.text import one_line, say, say_json, stdout, warn
from schemas.errors import ExitCode, UsageError
from schemas.text import size

if TYPE_CHECKING:
    from cli.tables import Given
    from schemas.engine import EngineSpec
    from schemas.model import ModelSpec

app = Commands(
    name="engine",
    help="Build, test, measure and share engines for GPUs.\n\nExample: rigflow engine build faces --for sm86",
)

Model: TypeAlias = Annotated[str, typer.Argument(help="An ONNX file, or the name of a model added or built in.")]
Key: TypeAlias = Annotated[str, typer.Argument(help="The beginning of an engine's key.")]


@app.command()
@ends_well
def build(
    model: Model,
    gpus: Annotated[str, typer.Option("--for", help="Kinds of GPUs: sm75,sm86,sm89,sm120, or all.")] = "",
    precision: Annotated[str, typer.Option(help="auto (what suits each GPU), fp32, fp16 or int8.")] = "auto",
    dim: Annotated[
        list[str] | None,
        typer.Option(help="Range of a free dimension; the batch has 1:8:32.", metavar="NAME=SMALLEST:BEST:LARGEST"),
    ] = None,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(help="A video or image of yours to test on and take int8 ranges from; repeat it.", metavar="FILE"),
    ] = None,
    pipeline: Annotated[str, typer.Option(help="The pipeline that feeds the model, for --calibrate.")] = "",
    backend: Annotated[str, typer.Option(help="tensorrt_rtx, or tensorrt on a machine that has the GPU.")] = "",
    anyway: Annotated[bool, typer.Option("--anyway", help="Build a precision that the GPU is slow at.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Build again what was built before.")] = False,
    as_json: Json = False,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Compile a model for kinds of GPUs.

    With TensorRT-RTX no GPU is needed here. sm75 has a plan of its own, newer GPUs share one.

    Example: rigflow engine build faces --for sm75,sm86 --precision fp16
    """
    from engines.backends.choice import compiler_called
    from workers.building import Order, build_all, chosen_targets, parse_precision, parse_ranges
    from workers.engines import engine_store, find_model

    spec, body = find_model(model)
    settings = settings_from(settings_file)
    chosen = compiler_called(backend, settings)
    order = Order(
        spec=spec,
        model=body,
        compiler=chosen,
        targets=chosen_targets(gpus, chosen),
        precision=parse_precision(precision),
        ranges=parse_ranges(dim or []),
        calibrate=tuple(calibrate or ()),
        pipeline=pipeline,
        anyway=anyway,
        again=again,
    )
    with answers(as_json) as answer:
        for engine, new in build_all(order, engine_store(settings.cache_folder), warn):
            done = f"built in {engine.build_s:.1f} s" if new else "is here already"
            about = f"{gpus_of(engine)}  {engine.basis.precision}  {size(engine.size_bytes)}"
            answer(f"{engine.key[:12]}  {about}  {done}", **_as_json(engine), new=new)
    return ExitCode.OK


@app.command("list")
@ends_well
def list_(
    nats: NatsUrl = None, as_json: Json = False, credentials: Credentials = None, settings_file: SettingsFile = None
) -> ExitCode:
    """List the engines of this machine.

    With --nats those that a fleet shares.

    Example: rigflow engine list --nats nats://rig1:4222
    """
    from cli.tables import list_of
    from pipelines.engines import fleet_engines

    settings = settings_from(settings_file, nats=nats, credentials=credentials)
    if settings.nats:
        specs = at_fleet(settings, fleet_engines)
    else:
        specs, damaged = store_of(settings).listed()
        for each in damaged:
            warn(each.reason)
    if as_json:
        say_json([_as_json(spec) for spec in specs])
        return ExitCode.OK
    titles = ("engine", "model", "GPUs", "precision", "backend", "batch", "size")
    rows = list_of(titles, map(_row, specs), left=5, named=("model",))
    stdout().print(rows if specs else "no engines yet; see `rigflow engine build --help`")
    return ExitCode.OK


def _row(spec: "EngineSpec") -> "list[Given]":
    backend = one_line(f"{spec.basis.backend} {spec.basis.version}")
    words = spec.key[:12], one_line(spec.model), one_line(gpus_of(spec)), spec.basis.precision, backend
    return [*words, f"1 to {spec.rows}", size(spec.size_bytes)]


@app.command()
@ends_well
def show(key: Key, as_json: Json = False, settings_file: SettingsFile = None) -> ExitCode:
    """Show everything about an engine.

    What it takes and gives, for which shapes, and what it was built from.

    Example: rigflow engine show 6c5cb62260de
    """

    from schemas.model import describe

    spec = store_of(settings_from(settings_file)).find(key)
    if as_json:
        say_json(_as_json(spec))
        return ExitCode.OK
    basis = spec.basis
    lines = [
        ("engine", spec.key),
        ("model", f"{spec.model} {basis.model_sha256[:16]}"),
        ("GPUs", gpus_of(spec) + (f", timed on {basis.device}" if basis.device else "")),
        ("precision", basis.precision),
        ("backend", f"{basis.backend} {basis.version}"),
        ("plan", f"{size(spec.size_bytes)}, sha256 {spec.sha256[:16]}, built in {spec.build_s:.1f} s"),
        (
            "graph",
            f"{basis.graph_sha256[:16]}, error {spec.agreement.error:.2g} of {spec.agreement.tolerance:g} allowed",
        ),
        *(("takes", f"{tensor.name} {describe(tensor.dtype, tensor.shape)}") for tensor in spec.inputs),
        *(("gives", f"{tensor.name} {describe(tensor.dtype, tensor.shape)}") for tensor in spec.outputs),
        *(
            ("profile", f"{shapes.input} {list(shapes.smallest)} best {list(shapes.best)} to {list(shapes.largest)}")
            for shapes in basis.profiles
        ),
    ]
    for title, text in lines:
        say(f"{title:<10} {text}")
    return ExitCode.OK


@app.command()
@ends_well
def check(keys: Keys = None, as_json: Json = False, settings_file: SettingsFile = None) -> ExitCode:
    """Check the files and the answers of engines.

    The graph that was compiled is run against the model on the CPU; a GPU is tested when it loads the engine.

    Example: rigflow engine check 6c5cb62260de
    """
    from schemas.errors import RigflowError
    from workers.engines import check_engine

    settings = settings_from(settings_file)
    store = store_of(settings)
    specs, damaged = store.listed()
    wrong = 0
    with answers(as_json) as answer:
        for each in damaged if not keys else ():
            wrong += 1
            answer(f"{each.key[:12]}  {each.reason}", key=each.key, error=each.reason)
        for spec in [store.find(key) for key in keys] if keys else specs:
            try:
                card, body = _model_of(spec)
                for what, finding in check_engine(store, spec.key, card, body):
                    answer(f"{spec.key[:12]}  {what}: {finding}", key=spec.key, what=what, found=str(finding))
            except RigflowError as error:
                wrong += 1
                answer(f"{spec.key[:12]}  {error}", key=spec.key, error=str(error))
    return ExitCode.SOME_FAILED if wrong else ExitCode.OK


def _model_of(spec: "EngineSpec") -> "tuple[ModelSpec | None, bytes]":
    """The model of an engine, if it is here."""
    from schemas.errors import ModelError
    from workers.engines import named_model

    try:
        card, body = named_model(spec.model)
    except (ModelError, UsageError):
        return None, b""
    return (card, body) if card.sha256 == spec.basis.model_sha256 else (None, b"")


def _as_json(spec: "EngineSpec") -> dict[str, object]:
    return {"key": spec.key, **spec.model_dump(mode="json")}


app.command()(bench)
app.command()(push)
app.command()(pull)
app.command()(export)
