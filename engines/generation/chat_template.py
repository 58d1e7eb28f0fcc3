"""Conversations as text, by the chat template that comes with a model, as Hugging Face's libraries render it.

A template is a program of Jinja that a stranger wrote. It runs in Jinja's sandbox with few filters and methods, so many
steps, and texts of so many characters: the limits depend on the template and the messages alone, so that every worker
comes to the same end. It is told no time. Source of the environment: transformers, utils/chat_template_utils.py.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from engines.content import ModelFiles
from engines.extras import imported
from engines.generation.template_sandbox import TooMuchError, environment, few_steps, pieces
from schemas.errors import ModelError, PipelineError, PluginMissing, RigflowError

TEMPLATE_FILE, SETTINGS_FILE = "chat_template.jinja", "tokenizer_config.json"
_HINT = "take a model for chat, or the pipeline `complete`"


class ChatTemplate:
    """The template of one model, which is called `name` in errors. Raises ModelError, PluginMissing."""

    def __init__(self, source: str, tokens: Mapping[str, str], name: str) -> None:
        self._name = name
        self._tokens = tokens
        jinja = imported("jinja2", f"the chat template of model {name}", "llm")
        imported("jinja2.sandbox", f"the chat template of model {name}", "llm")
        try:
            self._template = environment(jinja).from_string(source)
        except Exception as error:  # of Jinja's parser, and of Python's for deep nesting
            raise ModelError(
                f"model {name}: its chat template is damaged: {_line(error)}", "download it again"
            ) from error

    def text(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return a conversation as the text that the model continues. Raises PipelineError."""
        try:
            with few_steps():
                given = {"messages": [dict(each) for each in messages], "add_generation_prompt": True, **self._tokens}
                return "".join(pieces(self._template.generate(given)))
        except RigflowError:
            raise
        except Exception as error:  # of the template
            what = f"model {self._name} cannot put the messages into its chat template: {_line(error)}"
            raise PipelineError(what, _HINT) from error


def template_of(files: Mapping[str, bytes], name: str) -> ChatTemplate | None:
    """Return the template among a model's files, by their names; None if there is none. Raises ModelError."""
    try:
        settings = dict(json.loads(files.get(SETTINGS_FILE, b"{}")))
        source = files[TEMPLATE_FILE].decode() if TEMPLATE_FILE in files else settings.get("chat_template")
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(
            f"model {name}: its {SETTINGS_FILE} or template cannot be read", "download it again"
        ) from error
    if isinstance(source, list):  # several, each with a name
        named = {each.get("name"): each.get("template") for each in source if isinstance(each, dict)}
        source = named.get("default")
    if not isinstance(source, str) or not source:
        return None
    tokens = {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        token = settings.get(key)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            tokens[key] = token
    return ChatTemplate(source, tokens, name)


def texts_of(model: ModelFiles) -> dict[str, bytes]:
    """Return the files of a model that have its template. Raises ModelError."""
    found = {}
    for file in model.files:
        if file.name in (TEMPLATE_FILE, SETTINGS_FILE):
            try:
                found[file.name] = (model.folder / file.sha256).read_bytes()
            except OSError as error:
                raise ModelError(f"cannot read {file.name} of a model: {error.strerror}", "add it again") from error
    return found


def chat_text(template: ChatTemplate | None, messages: Sequence[Mapping[str, str]], name: str) -> str:
    """Return a conversation as text. Raises PipelineError if the model called `name` has no template."""
    if template is None:
        raise PipelineError(f"model {name} has no chat template", _HINT)
    return template.text(messages)


def check_template(folder: Path) -> None:
    """Render short conversations. Raises ModelError for a template that does not end, or is damaged.

    Without Jinja nothing is checked here: a worker that has it refuses such a template too.
    """
    name = str(folder)
    try:
        names = [each for each in (TEMPLATE_FILE, SETTINGS_FILE) if (folder / each).is_file()]
        files = {each: (folder / each).read_bytes() for each in names}
        template = template_of(files, name)
    except OSError as error:
        raise ModelError(f"cannot read the chat template of {folder}: {error.strerror}", "check the path") from error
    except PluginMissing:
        return
    if template is None:
        return
    talk = [{"role": role, "content": "Hello."} for role in ("user", "assistant", "user")]
    for messages in (talk[:1], talk):
        try:
            template.text(messages)
        except PipelineError as error:
            if isinstance(error.__cause__, TooMuchError):
                raise ModelError(error.what, "download it again, or remove its template") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
