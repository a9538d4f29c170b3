"""The options of a question in groups, in the order in which --help shows them."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

FIRST, GENERAL = "", "general"  # the group without a heading, and that of options without a group


class Field(NamedTuple):
    """The type and the default of an option."""

    hint: Any
    default: Any


def grouped(fields: Mapping[str, Field], groups: Mapping[str, tuple[str, ...]]) -> type:
    """A dataclass whose --help shows `fields` group by group.

    Args:
        fields: name of a field → its type and its default.
        groups: heading → names of fields. Those of the heading `FIRST` come first; names that no field has are left
            out, and fields without a group come last, under the heading `GENERAL`.
    """
    import tyro

    named = {name for names in groups.values() for name in names}
    groups = dict(groups) | {GENERAL: tuple(name for name in fields if name not in named)}
    listed = lambda heading: [(name, *fields[name]) for name in groups.get(heading, ()) if name in fields]
    made: list[tuple[str, Any, Any]] = listed(FIRST)
    for number, heading in enumerate(heading for heading in groups if heading != FIRST):
        if members := listed(heading):
            group = dataclasses.make_dataclass(f"Group{number}", members, frozen=True)
            shown = Annotated[tyro.conf.OmitArgPrefixes[group], tyro.conf.arg(name=heading, help="")]
            made.append((f"group_{number}", shown, group()))
    return dataclasses.make_dataclass("Options", made)


def values(read: Any) -> dict[str, Any]:
    """Field → value of all options of a `grouped` dataclass that was read."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(read):
        value = getattr(read, field.name)
        found |= values(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return found
