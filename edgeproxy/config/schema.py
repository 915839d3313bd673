"""What the types in `model` say about a key, for whoever checks a value or explains one.

May know: msgspec's view of types. Must not: know any key by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAliasType, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct, inspect

from edgeproxy.config.toml import toml_value


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a table, or one item of a list that a key holds."""

    name: str
    annotation: object
    default: object = NODEFAULT
    """NODEFAULT if it must be given."""
    sentence: str = ""
    expected: str = ""
    """What is allowed, in words: "an integer of bytes, 1024 or more"."""
    unit: str = ""
    check: Callable[[Any], bool] | None = None
    example: object = None
    absent: str = ""
    """What holds if it is left out and has no default."""
    may_be_empty: bool = False
    table: type[Struct] | None = None
    """The Struct, where the key is a table or a list of tables."""
    item: "Key | None" = None
    """What each item must be, where the key may be a list."""
    names: "Key | None" = None
    """What each name must be, where the key is a table of values that are alike."""
    values: "Key | None" = None
    """What each value in such a table must be."""

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is NODEFAULT


@cache
def keys_of(table: type[Struct]) -> dict[str, Key]:
    """The keys of a table by name, in the order in which they are written."""
    return {
        field.name: _key(
            field.name,
            field.type,
            field.default if field.default_factory is NODEFAULT else field.default_factory(),
        )
        for field in msgspec.structs.fields(table)
    }


def _key(name: str, annotation: object, default: object = NODEFAULT) -> Key:
    type_, extra, sentence = _unwrap(inspect.type_info(annotation))
    entries = _arguments(annotation, dict)
    items = () if entries else _arguments(annotation, list)  # what lists there are in a table's values is theirs
    words = _words(type_, extra | {"words": _arguments(annotation, Literal)})
    may_be_empty = default == "" or bool(extra.get("empty"))
    return Key(
        name=name,
        annotation=annotation,
        default=default,
        sentence=sentence,
        expected=f'{words}; or ""' if may_be_empty else words,
        unit=_unit(type_, extra),
        check=extra.get("check"),
        example=extra.get("example"),
        absent=extra.get("absent", ""),
        may_be_empty=may_be_empty,
        table=_table(type_),
        item=_key(name, items[0]) if items else None,
        names=_key(name, entries[0]) if entries else None,
        values=_key(name, entries[1]) if entries else None,
    )


def _unwrap(type_: inspect.Type) -> tuple[inspect.Type, dict[str, Any], str]:
    """A type without its Metadata, and what that said."""
    if isinstance(type_, inspect.Metadata):
        return type_.type, type_.extra or {}, (type_.extra_json_schema or {}).get("description", "")
    return type_, {}, ""


def _unit(type_: inspect.Type, extra: dict[str, Any]) -> str:
    """Its unit, be it the type's own or that of one of several that it may be."""
    inner, more, _ = _unwrap(type_)
    extra = extra | more
    members = inner.types if isinstance(inner, inspect.UnionType) else ()
    return extra.get("unit") or next((unit for member in members if (unit := _unit(member, {}))), "")


def _table(type_: inspect.Type) -> type[Struct] | None:
    if isinstance(type_, inspect.ListType):
        type_ = _unwrap(type_.item_type)[0]
    return type_.cls if isinstance(type_, inspect.StructType) else None


def _arguments(annotation: object, generic: object) -> tuple[Any, ...]:
    """X, Y of `generic[X, Y]`, wherever in the annotation that is; nothing if it is not."""
    if isinstance(annotation, TypeAliasType):
        return _arguments(annotation.__value__, generic)
    if get_origin(annotation) is generic:
        return get_args(annotation)
    return next((found for part in get_args(annotation) if (found := _arguments(part, generic))), ())


def _words(type_: inspect.Type, extra: dict[str, Any]) -> str:
    """What a type allows, so that it fits behind "expected"."""
    *others, last = _choices(type_, extra)
    return f"{', '.join(others)} or {last}" if others else last


def _choices(type_: inspect.Type, extra: dict[str, Any]) -> list[str]:
    """Each thing that it may be, in words; literal ones first."""
    inner, more, _ = _unwrap(type_)
    extra = extra | more
    if "allowed" in extra:
        return [str(extra["allowed"])]
    if isinstance(inner, inspect.LiteralType):
        return [toml_value(word) for word in extra["words"]]  # as they were written: msgspec sorts its own
    if isinstance(inner, inspect.UnionType):
        members = sorted(inner.types, key=lambda member: not isinstance(member, inspect.LiteralType))
        return [word for member in members for word in _choices(member, extra)]
    if isinstance(inner, inspect.NoneType):  # that is leaving it out
        return []
    return [_type_words(inner, extra)]


def _type_words(inner: inspect.Type, extra: dict[str, Any]) -> str:
    unit = f" of {extra['unit']}" if "unit" in extra else ""
    match inner:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"an integer{unit}{_range(inner)}"
        case inspect.FloatType():
            return f"a number{unit}{_range(inner)}"
        case inspect.ListType() if _table(inner) is not None:
            return "a list of tables"
        case inspect.ListType():
            count = f" of at least {inner.min_length}" if inner.min_length else ""
            return f"a list{count}, each {_words(inner.item_type, {'words': extra.get('words')})}"
        case inspect.DictType():
            return f"a table, its keys {_words(inner.key_type, {})}, each with {_words(inner.value_type, {})}"
        case inspect.StructType():
            return "a table"
        case _:
            return "text"


def _range(number: inspect.IntType | inspect.FloatType) -> str:
    bounds = ""
    if number.gt is not None:
        bounds = f", more than {number.gt}" + ("" if number.le is None else f" and at most {number.le}")
    elif number.ge is not None:
        bounds = f", {number.ge} or more" if number.le is None else f", {number.ge} to {number.le}"
    return bounds if number.multiple_of is None else f"{bounds}, a multiple of {number.multiple_of}"
