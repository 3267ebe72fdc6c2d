"""The same conversation in the forms that templates take: contents as strings or parts, arguments as objects or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from curate.conversations.normalise import RowError, texts
from curate.storage.limits import shown

Turn = dict[str, Any]


def forms(turns: list[Turn], *, strings: bool, parts: bool) -> Iterator[list[Turn]]:
    """The conversation as a template may want it, the likeliest form first.

    Contents have one form only, the one that the template shows: another may be taken without a word, and shown as nothing.

    Args:
        turns: normalised.
        strings: whether the template shows contents that are strings.
        parts: whether it shows contents that are lists of parts.
    """
    content = _as_parts if parts and not strings else _as_strings if strings and not parts else _as_given
    calls = [_as_given, _with_objects, _with_json] if any(turn.get("tool_calls") for turn in turns) else [_as_given]
    seen = list[list[Turn]]()
    for call in calls:
        made = [call(content(turn)) for turn in turns]
        if made not in seen:
            seen.append(made)
            yield made


def tool_list(tools: Any) -> list[Any] | None:
    """Tools as a list of schemas: given as one, or as JSON, or as a list of JSON. Raises RowError."""
    found = _parsed(tools, "tools") if isinstance(tools, str) else tools
    if not found:
        return None
    if not isinstance(found, list):
        raise RowError(f"tools: not a list ({type(found).__name__})")
    return [_parsed(tool, "tools") if isinstance(tool, str) else tool for tool in found]


def given_options(options: Any, taken: Collection[str]) -> dict[str, Any]:
    """Further arguments of the template, without what is null. Raises RowError for what is no object, and for a `taken` name."""
    if options is not None and not isinstance(options, Mapping):
        raise RowError(f"chat_template_kwargs: not an object ({type(options).__name__})")
    made = {key: value for key, value in (options or {}).items() if value is not None}
    wrong = next((key for key in made if key in taken), None)
    if wrong is not None:
        raise RowError(f"chat_template_kwargs: {shown(wrong)} is no argument of a chat template")
    return made


def called(turn: Turn) -> list[str]:
    """Names of the functions that a message calls."""
    calls = [call for call in turn.get("tool_calls") or [] if isinstance(call, Mapping)]
    functions = [call["function"] if isinstance(call.get("function"), Mapping) else call for call in calls]
    return [function["name"] for function in functions if isinstance(function.get("name"), str)]


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except ValueError as error:
        raise RowError(f"{what}: broken JSON ({error})") from error


def _as_given(turn: Turn) -> Turn:
    return turn


def _as_strings(turn: Turn) -> Turn:
    return {**turn, "content": "".join(texts(turn["content"]))} if isinstance(turn.get("content"), list) else turn


def _as_parts(turn: Turn) -> Turn:
    content = turn.get("content")
    return {**turn, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else turn


def _with_objects(turn: Turn) -> Turn:
    return _called(turn, _object)


def _with_json(turn: Turn) -> Turn:
    return _called(
        turn, lambda arguments: arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    )


def _object(arguments: Any) -> Any:
    """An object where the text is one; the text as it is where it is broken."""
    if not isinstance(arguments, str):
        return arguments
    try:
        found = json.loads(arguments)
    except ValueError:
        return arguments
    return found if isinstance(found, dict) else arguments


def _called(turn: Turn, change: Callable[[Any], Any]) -> Turn:
    """The turn with the arguments of its calls changed."""
    calls = turn.get("tool_calls")
    if not calls:
        return turn
    return {**turn, "tool_calls": [_changed(call, change) for call in calls]}


def _changed(call: Any, change: Callable[[Any], Any]) -> Any:
    if not isinstance(call, Mapping):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _changed(call["function"], change)}
    return {**call, "arguments": change(call["arguments"])} if call.get("arguments") is not None else dict(call)
