"""imagine: texts, or pictures and the option `prompt`, become new pictures, `image [W, H, W', 3]` uint8."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, Strict, ValidationError

from engines.diffusion.choice import NAMES
from engines.diffusion.drawing import Drawing
from engines.diffusion.prompt import MOST_SKIPPED
from engines.diffusion.schedule import MOST_STEPS, Prediction, Spacing
from engines.diffusion.session import DiffusionSession, Drawn
from engines.operators.base import BaseOperator, each_part, each_row, required_model, with_rows
from engines.part import Array, Part, Tick
from engines.planned import INDEX, Arrays, Tensor, model_picture_name
from engines.ports import Session
from engines.ragged import Ragged
from engines.seeds import seed_of_item
from engines.texts import REQUEST, TEXT, needed_text, text_of_row
from schemas.errors import MediaError, PipelineError, RigflowError, format_field_error
from schemas.model import ModelSpec
from schemas.picture import PictureSpec
from schemas.pipeline import OperatorStage
from schemas.requests import TextRequest, Words

MOST_TOGETHER = 16  # pictures
_BACKEND = "diffusion"
_IMAGE, _PICTURE = "image", "picture"
_MODEL = "add a folder of Stable Diffusion, see docs/imagine.md"


def _known(name: str) -> str:
    if name and name not in NAMES:
        raise ValueError(f"there is no scheduler {name[:60]}, only {', '.join(NAMES)}")
    return name


_Side: TypeAlias = Annotated[int, Strict(), Field(ge=8, le=2048, multiple_of=8)]


class Wishes(BaseModel):
    """How pictures are drawn: by a stage, or by a line for itself. None: not given; then it is what suits the model."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    negative: Words | None = None
    steps: Annotated[int, Strict(), Field(ge=1, le=MOST_STEPS)] | None = None
    guidance: Annotated[FiniteFloat, Strict(), Field(ge=0, le=100)] | None = None
    scheduler: Annotated[str, AfterValidator(_known)] | None = None
    prediction: Prediction | None = None
    spacing: Spacing | None = None
    width: _Side | None = None
    height: _Side | None = None
    clip_skip: Annotated[int, Strict(), Field(ge=0, le=MOST_SKIPPED)] | None = None
    seed: Annotated[int, Strict(), Field(ge=0, lt=1 << 63)] | None = None

    def over(self, other: "Wishes") -> "Wishes":
        """Return these, and those of `other` for what these leave out."""
        return other.model_copy(update={name: value for name, value in dict(self).items() if value is not None})


class ImagineOptions(Wishes):
    """`prompt` and `strength` are of pictures that begin with others: of media with pictures.

    `batch`: how many pictures a GPU computes together; see `DiffusionSession.draw_all`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    batch: Annotated[int, Strict(), Field(ge=1, le=MOST_TOGETHER)] = 1
    prompt: Words = ""
    strength: Annotated[FiniteFloat, Strict(), Field(gt=0, le=1)] = 0.7


class Imagine(BaseOperator[ImagineOptions]):
    """Draws a picture of each row."""

    options_class = ImagineOptions
    needs_model = True

    def __init__(self, stage: OperatorStage, model: ModelSpec | None) -> None:
        super().__init__(stage, model)
        self._model = required_model(stage, model, _MODEL)
        if self._model.backend != _BACKEND:
            raise PipelineError(f"stage `{stage.name}`: model `{self._model.name}` draws no pictures of words", _MODEL)
        self._begins = model_picture_name(stage.name, _PICTURE)
        self._text = stage.reads.get(TEXT, TEXT)

    @property
    def by_source(self) -> bool:
        """Whether pictures may differ in size: lines name their own, so each is a part by itself."""
        return True

    def pictures(self, inputs: Arrays) -> Mapping[str, PictureSpec]:
        """Return the picture that a new one begins with; none where there are texts."""
        if self._text in inputs:
            return {}
        options = self._options
        if not options.prompt.strip():
            raise PipelineError(f"stage `{self._stage.name}` has no prompt", "set it: --set imagine.prompt='...'")
        if not any(tensor.name == _PICTURE for tensor in self._model.inputs):
            what = f"stage `{self._stage.name}`: model `{self._model.name}` has no vae_encoder"
            raise PipelineError(what, "take one that has, or words alone")
        if options.width is None or options.height is None:
            raise PipelineError(f"stage `{self._stage.name}` has no width and height", "set both, in pixels")
        size = (options.height, options.width)
        return {self._begins: PictureSpec(size=size, fit="crop", resize="lanczos", antialias=True, background=255)}

    def plan(self, inputs: Arrays) -> Arrays:
        """Return the pictures. Raises PipelineError if there is neither text nor picture."""
        if self._begins not in inputs:
            needed_text(self._stage, inputs, self._text, 'take media = ["text"], or set reads')
        return {_IMAGE: Tensor("uint8", ("W", "H", "W'", 3))}

    def rows(self, part: Part) -> int:
        """Return 0 where a picture waits for no other; otherwise, so that `batch` pictures fill a batch."""
        batch = self._options.batch
        return 0 if batch == 1 else len(part.meta.pts) * -(-self._stage.max_batch // batch)

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """Return each part with its pictures. A row that cannot be drawn is a failed item."""
        assert isinstance(session, DiffusionSession), "the card names the backend"
        outcomes: dict[tuple[int, int], Drawn | RigflowError] = {}
        wanted: dict[tuple[int, int], Drawing] = {}
        for place in ((number, row) for number, part in enumerate(parts) for row in range(len(part.meta.pts))):
            try:
                wanted[place] = self._drawing(parts[place[0]], place[1])
            except RigflowError as error:
                outcomes[place] = error
        drawn = session.draw_all(list(wanted.values()), self._options.batch, tick)
        outcomes |= dict(zip(wanted, drawn, strict=True))
        self.counts.add(len(wanted), max(len(wanted), self._options.batch))
        numbers = iter(range(len(parts)))

        def with_pictures(part: Part) -> Part:
            number = next(numbers)
            return self._with_pictures(part, [outcomes[number, row] for row in range(len(part.meta.pts))])

        return each_part(parts, with_pictures)

    def _with_pictures(self, part: Part, outcomes: Sequence[Drawn | RigflowError]) -> Part:
        pictures: list[Array] = []
        notes: list[str] = []

        def take(number: int) -> None:
            outcome = outcomes[number]
            if isinstance(outcome, RigflowError):
                raise outcome
            if pictures and pictures[0].shape != outcome[0].shape:
                raise PipelineError("its size is not that of the pictures beside it", "set decode.items = 1")
            pictures.append(outcome[0])
            notes.extend(outcome[1])

        errors = each_row(part, take)
        made = {_IMAGE: np.stack(pictures) if pictures else np.zeros((0, 8, 8, 3), np.uint8)}
        return with_rows(part, made, errors, self._stage.keeps, notes)

    def _drawing(self, part: Part, number: int) -> Drawing:
        """The picture that a row asks for. Raises MediaError."""
        text, line = part.arrays.get(self._text), part.arrays.get(REQUEST)
        picture = None
        prompt, own = self._options.prompt, Wishes()
        if isinstance(text, Ragged):
            prompt = text_of_row(text, number)
            if isinstance(line, Ragged) and self._text == TEXT and (asked := text_of_row(line, number)):
                own = _of_line(asked)
        else:
            picture = np.asarray(part.array(self._begins))[int(part.array(INDEX)[number, 0])]
        wishes = own.over(self._options)
        size = None
        if wishes.height is not None or wishes.width is not None:
            size = (wishes.height or wishes.width or 0, wishes.width or wishes.height or 0)
        seed = wishes.seed or 0
        return Drawing(
            prompt=prompt,
            negative=wishes.negative or "",
            size=size,
            steps=wishes.steps,
            guidance=wishes.guidance,
            sampler=wishes.scheduler or "",
            prediction=wishes.prediction,
            spacing=wishes.spacing,
            clip_skip=wishes.clip_skip or 0,
            seed=seed if own.seed is not None else seed_of_item(part.meta.key, number, seed),
            picture=picture,
            strength=self._options.strength,
        )


def _of_line(line: str) -> Wishes:
    """What a line of JSON chooses for itself. Raises MediaError."""
    try:
        extra: dict[str, Any] = dict(TextRequest.model_validate_json(line).model_extra or {})
        return Wishes.model_validate(extra)
    except ValidationError as error:
        raise MediaError(format_field_error(error.errors()[0]), "see docs/imagine.md") from error
