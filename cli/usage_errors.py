"""Wrong usage in our words: what is wrong, and what to type."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.help import argument_name
from schemas.errors import UsageError
from schemas.text import nearest, shell_word

# the parser's words for a wrong value -> ours; other releases of the parser have other words
_WORDS = {
    r"^Invalid value(?: for .*?)?: ": "",
    r"Value error, ": "",
    r"Input should be ": "it must be ",
    r"a valid integer\b.*": "a whole number",
    r"a valid number\b.*": "a number",
    r"less than or equal to ": "at most ",
    r"greater than or equal to ": "at least ",
    r"'": "",
}
CHMOD = "check its permissions, and those of the folders that it is in"


def usage_error(error: Exception, path: str, words: Sequence[str]) -> UsageError:
    """The parser's error of these words in ours. `path`: the command, where the error does not know it."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else path
    kind, message = (
        type(error).__name__,
        " ".join(getattr(error, "format_message", error.__str__)().split()).rstrip("."),
    )
    see = f"see `{path} --help`"
    param = getattr(error, "param", None)
    if kind == "MissingParameter" and param is not None:
        return UsageError(f"{_named(param)} is missing", f"write {_usage(context)}; {see}")
    if kind == "NoSuchOption":
        return _no_option(str(getattr(error, "option_name", message)), context, words, see)
    if found := re.match(r"No such command '(.*?)'", message):
        return _no_command(found[1], context, path, see)
    if message == "Missing command":
        there = ", ".join(getattr(context.command, "commands", {})) if context else ""
        return UsageError(f"{path} is a group of commands", f"add one of them: {there}; {see}")
    if param is not None and (found := re.search(r"[Pp]ath (.*) is not readable", message.replace("'", ""))):
        return UsageError(f"{found[1]}: no permission to read it", CHMOD)
    if param is not None:
        for theirs, ours in _WORDS.items():
            message = re.sub(theirs, ours, message)
        return UsageError(f"{_named(param)}: {message[:1].lower()}{message[1:]}", see)
    message = re.sub(r"^Got unexpected extra argument(?:s|\(s\))? \((.*)\)", r"too many arguments: \1", message)
    message = re.sub(r"requires an argument", "is without its value", message).replace("'", "")
    return UsageError(message[:1].lower() + message[1:], see)


def _named(param: Any) -> str:
    """An argument or an option as the help writes it."""
    if param.param_type_name == "argument":
        name = argument_name(param)
        return (name[1:-1] if name.startswith("[") and name.endswith("]") else name).removesuffix("...")
    return str(max(param.opts, key=len))


def _usage(context: Any) -> str:
    """The command with all its arguments, and the options that it wants."""
    params = context.command.params
    wanted = [f"{max(each.opts, key=len)} {each.metavar or ''}".rstrip() for each in params if _is_wanted(each)]
    arguments = [argument_name(each) for each in params if each.param_type_name == "argument"]
    return f"`{' '.join([context.command_path, *arguments, *wanted])}`"


def _is_wanted(param: Any) -> bool:
    return param.param_type_name == "option" and bool(param.required)


def _no_option(name: str, context: Any, words: Sequence[str], see: str) -> UsageError:
    what = f"there is no option {name}"
    files = [word for word in words if word.startswith("-") and len(word) > 1 and (name in word or word in name)]
    file = next((word for word in files if Path(word).exists() or re.fullmatch(r"-[^-].*\.\w+", word)), "")
    if file:
        return UsageError(what, f"write {shell_word(file)} if that is a file")
    options = [option for each in context.command.params for option in each.opts] if context else []
    near = nearest(name.lstrip("-"), [option.lstrip("-") for option in options])  # all have dashes
    meant = next((option for option in options if near and option.lstrip("-") == near), "")
    return UsageError(what, f"did you mean {meant}? {see}" if meant else see)


def _no_command(name: str, context: Any, path: str, see: str) -> UsageError:
    what = f"there is no command `{path} {name}`"
    near = nearest(name, getattr(context.command, "commands", {}) if context else ())
    return UsageError(what, f"did you mean `{path} {near}`? {see}" if near else see)
