"""What the types in `model` say about a key, for whoever checks a value or explains one.

May know: msgspec's view of types. Must not: know any key by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAliasType, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct, inspect

from edgeproxy.config.toml import toml_value


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a table, or one item of a list that a key holds."""

    name: str
    annotation: Any
    default: Any = NODEFAULT
    """NODEFAULT if it must be given."""
    sentence: str = ""
    expected: str = ""
    """What is allowed, in words: "an integer of bytes, 1024 or more"."""
    check: Callable[[Any], bool] | None = None
    not_yet: tuple[str, ...] = ()
    example: Any = None
    table: type[Struct] | None = None
    """The Struct, where the key is a table or a list of tables."""
    item: "Key | None" = None
    """What each item must be, where the key may be a list."""

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


def _key(name: str, annotation: Any, default: Any = NODEFAULT) -> Key:
    type_, extra, sentence = _unwrap(inspect.type_info(annotation))
    item = _list_item(annotation)
    words = _words(type_, extra)
    return Key(
        name=name,
        annotation=annotation,
        default=default,
        sentence=sentence,
        expected=f'{words}; or ""' if default == "" else words,
        check=extra.get("check"),
        not_yet=extra.get("not_yet", ()),
        example=extra.get("example"),
        table=_table(type_),
        item=None if item is None else _key(name, item),
    )


def _unwrap(type_: inspect.Type) -> tuple[inspect.Type, dict[str, Any], str]:
    """A type without its Metadata, and what that said."""
    if isinstance(type_, inspect.Metadata):
        return type_.type, type_.extra or {}, (type_.extra_json_schema or {}).get("description", "")
    return type_, {}, ""


def _table(type_: inspect.Type) -> type[Struct] | None:
    if isinstance(type_, inspect.ListType):
        type_ = _unwrap(type_.item_type)[0]
    return type_.cls if isinstance(type_, inspect.StructType) else None


def _list_item(annotation: Any) -> Any:
    """The annotation of a list's items, wherever in this annotation the list is; None if there is none."""
    if isinstance(annotation, TypeAliasType):
        return _list_item(annotation.__value__)
    if get_origin(annotation) is list:
        return get_args(annotation)[0]
    return next((item for part in get_args(annotation) if (item := _list_item(part)) is not None), None)


def _words(type_: inspect.Type, extra: dict[str, Any]) -> str:
    """What a type allows, so that it fits behind "expected"."""
    inner, more, _ = _unwrap(type_)
    extra = extra | more
    if "allowed" in extra:
        return str(extra["allowed"])
    unit = f" of {extra['unit']}" if "unit" in extra else ""
    match inner:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"an integer{unit}{_range(inner)}"
        case inspect.FloatType():
            return f"a number{unit}{_range(inner)}"
        case inspect.LiteralType():
            return _or(map(toml_value, inner.values))
        case inspect.UnionType():
            return _or(_words(member, extra) for member in inner.types if not isinstance(member, inspect.NoneType))
        case inspect.ListType():
            count = "" if not inner.min_length else f" of at least {inner.min_length}"
            return f"a list{count}, each {_words(inner.item_type, {})}"
        case inspect.DictType() | inspect.StructType():
            return "a table"
        case _:
            return "text"


def _range(number: inspect.IntType | inspect.FloatType) -> str:
    bounds = ""
    if number.gt is not None:
        bounds = f", more than {number.gt}" + ("" if number.le is None else f", {number.le} or less")
    elif number.ge is not None:
        bounds = f", {number.ge} or more" if number.le is None else f", {number.ge} to {number.le}"
    return bounds if number.multiple_of is None else f"{bounds}, a multiple of {number.multiple_of}"


def _or(words: Any) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
