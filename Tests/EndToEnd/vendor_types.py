"""Strict validation against the pydantic models of the official `openai` and `anthropic` packages.

The SDKs construct their models leniently: unknown fields are kept, missing ones are left out, wrong types go unnoticed. A client in another
language is not so kind, so `check` walks a JSON value along the annotations and counts every difference as a fault.
"""

import datetime
import types
import typing
from collections import abc

import openai.types.chat.chat_completion_chunk as chunk
import openai.types.chat.chat_completion_message as message
import typing_extensions
from openai.types.responses import Response, ResponseFunctionCallArgumentsDoneEvent
from pydantic import BaseModel

# What we send beyond the vendors' types, documented in docs/compatibility.md: (model, field) to its type.
EXTRAS = {
    (message.ChatCompletionMessage, "reasoning_content"): str,
    (chunk.ChoiceDelta, "reasoning_content"): str,
    # Older versions of the SDK's type want it, newer ones don't know it.
    (ResponseFunctionCallArgumentsDoneEvent, "name"): str,
    # Open Responses asks for these; the SDK's type has them not.
    (Response, "store"): bool, (Response, "presence_penalty"): float, (Response, "frequency_penalty"): float,
}


def check(value, annotation):
    """Fails with every fault; returns the value."""
    found = faults(value, annotation)
    assert not found, f"not a {_name(annotation)}:\n  " + "\n  ".join(found) + f"\n{value!r:.2000}"
    return value


def faults(value, annotation, path="$", metadata=()):
    """What keeps a JSON value from being of that type, each with its place; empty when it is."""
    annotation, metadata = _bare(annotation, metadata)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (object, typing.Any):
        return []
    if origin is typing.Union or origin is types.UnionType:
        return _union(value, arguments, path, metadata)
    if origin is typing.Literal:
        # Python's True is 1, JSON's is not.
        good = any(type(value) is type(member) and value == member for member in arguments)
        return [] if good else [f"{path}: {value!r:.80} is none of {', '.join(map(repr, arguments[:12]))}"]
    if annotation is None or annotation is type(None):
        return [] if value is None else [f"{path}: {value!r:.80} is not null"]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _model(value, annotation, path)
    if typing_extensions.is_typeddict(annotation):
        return _typed_dict(value, annotation, path)
    if origin in (list, abc.Iterable, abc.Sequence):
        if not isinstance(value, list):
            return [f"{path}: {value!r:.80} is no array"]
        return [fault for index, item in enumerate(value) for fault in faults(item, arguments[0], f"{path}[{index}]")]
    if origin in (dict, abc.Mapping):
        if not isinstance(value, dict):
            return [f"{path}: {value!r:.80} is no object"]
        return [fault for key, item in value.items() for fault in faults(item, arguments[1], f"{path}.{key}")]
    return _scalar(value, annotation, path)


def _bare(annotation, metadata):
    """An annotation without aliases and `Annotated`, whose metadata is kept: a union's discriminator is in it."""
    while True:
        if isinstance(annotation, typing_extensions.TypeAliasType):
            annotation = annotation.__value__
        elif typing.get_origin(annotation) is typing.Annotated:
            metadata = (*metadata, *annotation.__metadata__)
            annotation = annotation.__origin__
        elif typing.get_origin(annotation) in (typing.Required, typing_extensions.Required, typing_extensions.NotRequired):
            annotation = typing.get_args(annotation)[0]
        else:
            return annotation, metadata


def _scalar(value, annotation, path):
    if annotation is datetime.datetime:
        try:
            good = isinstance(value, str) and datetime.datetime.fromisoformat(value.replace("Z", "+00:00")).tzinfo is not None
        except ValueError:
            good = False
    elif annotation in (int, float):
        good = isinstance(value, int if annotation is int else (int, float)) and not isinstance(value, bool)
    elif annotation in (str, bool, list, dict):
        good = isinstance(value, annotation)
    else:
        raise NotImplementedError(f"{path}: annotation {annotation!r}")
    return [] if good else [f"{path}: {value!r:.80} is no {annotation.__name__}"]


def _model(value, model, path):
    if not isinstance(value, dict):
        return [f"{path}: {value!r:.80} is no {model.__name__}"]
    found = []
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for name in value.keys() - fields.keys():
        extra = EXTRAS.get((model, name))
        found += faults(value[name], extra, f"{path}.{name}") if extra else [f"{path}.{name}: {model.__name__} has no such field"]
    for name, field in fields.items():
        if name in value:
            found += faults(value[name], field.annotation, f"{path}.{name}", tuple(field.metadata))
        elif field.is_required():
            found.append(f"{path}.{name}: missing in {model.__name__}")
    return found


def _typed_dict(value, annotation, path):
    """Types of requests, which some replies repeat."""
    if not isinstance(value, dict):
        return [f"{path}: {value!r:.80} is no {annotation.__name__}"]
    hints = typing_extensions.get_type_hints(annotation, include_extras=True)
    found = [f"{path}.{name}: {annotation.__name__} has no such field" for name in value.keys() - hints.keys()]
    found += [f"{path}.{name}: missing in {annotation.__name__}" for name in annotation.__required_keys__ - value.keys()]
    for name in value.keys() & hints.keys():
        found += faults(value[name], hints[name], f"{path}.{name}")
    return found


def _union(value, members, path, metadata):
    """With a discriminator only the member that it names counts; without one any member that fits, else the nearest one's faults."""
    field = next(filter(None, (getattr(item, "discriminator", None) or getattr(item, "field_name", None) for item in metadata)), None)
    others = [member for member in members if _bare(member, ())[0] not in (None, type(None))]
    if value is None and len(others) < len(members):
        return []
    members = others
    if field and isinstance(value, dict):
        tags = {}
        for member in members:
            for tag in _tags(member, field):
                tags.setdefault(tag, []).append(member)
        if value.get(field) not in tags:
            return [f"{path}.{field}: {value.get(field, 'nothing')!r:.80} is none of {', '.join(sorted(map(str, tags)))}"]
        members = tags[value[field]]
    attempts = [faults(value, member, path) for member in members]
    best = min(attempts, key=len)
    if best and isinstance(value, dict):
        # The member that the value says it is tells more than one that happens to have fewer fields.
        named = [
            found for member, found in zip(members, attempts)
            if any(value.get(name) in _tags(member, name) for name in ("type", "role", "object") if isinstance(value.get(name), str))]
        best = min(named, key=len) if named else best
    return best


def _tags(member, field):
    """The values by which a member of a union is known."""
    member, metadata = _bare(member, ())
    if typing.get_origin(member) in (typing.Union, types.UnionType):
        return [tag for inner in typing.get_args(member) for tag in _tags(inner, field)]
    if isinstance(member, type) and issubclass(member, BaseModel):
        found = next((item for name, item in member.model_fields.items() if (item.alias or name) == field), None)
        annotation = found.annotation if found else None
    elif typing_extensions.is_typeddict(member):
        annotation = typing_extensions.get_type_hints(member).get(field)
    else:
        return []
    annotation, _ = _bare(annotation, ())
    tags = []
    for inner in typing.get_args(annotation) if typing.get_origin(annotation) in (typing.Union, types.UnionType) else [annotation]:
        tags += typing.get_args(inner) if typing.get_origin(inner) is typing.Literal else []
    return tags


def _name(annotation):
    return getattr(annotation, "__name__", None) or str(annotation)[:80]
