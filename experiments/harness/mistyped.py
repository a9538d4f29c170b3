"""What a user may have meant who mistyped a command line: one sentence with the right form."""

import difflib
import pathlib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

WORDS = {int: "whole number", float: "number"}


class Form(NamedTuple):
    """What an option takes after its name.

    Attributes:
        kind: `bool`, `int`, `float`, or another type, which reads every word.
        several: whether it takes several values with spaces between them.
        choices: the words that it allows; empty if it allows all that `kind` reads.
    """

    kind: Any
    several: bool = False
    choices: tuple[str, ...] = ()

    def reads(self, word: str) -> bool:
        """Whether `word` is one of its values."""
        if self.choices:
            return word in self.choices
        try:
            return self.kind not in (int, float) or self.kind(word) is not None
        except ValueError:
            return False

    def expected(self) -> str:
        """What it takes, in words: `a whole number`, `one of pdf, svg`."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        return f"a {WORDS[self.kind]}" if self.kind in WORDS else "one value"


def form(hint: Any) -> Form:
    """The form of an option whose field has the type `hint`. A field that may be None is read as if it may not."""
    import tyro

    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        inner = form(arguments[0])
        return inner._replace(several=False) if tyro.conf.UseAppendAction in arguments[1:] else inner
    if origin in (typing.Union, types.UnionType):
        return form(next(part for part in arguments if part is not type(None)))
    if origin is tuple:
        return form(arguments[0])._replace(several=True)
    if origin is typing.Literal:
        return Form(str, choices=tuple(map(str, arguments)))
    return Form(hint)


def sentence(words: Sequence[str], forms: Mapping[str, Form], hints: Mapping[str, str]) -> str | None:
    """What is wrong with the first mistyped word of a command line, and what was meant; None if it is not known.

    It is one line: control characters are written as in Python.

    Args:
        words: the words after the command.
        forms: option, without its dashes → its form; an empty name if words may stand without an option.
        hints: a word that users mistake for an option, or an option → a sentence to add.
    """
    found = _sentence(words, forms, hints)
    return None if found is None else "".join(x if x.isprintable() else ascii(x)[1:-1] for x in found)


def _sentence(words: Sequence[str], forms: Mapping[str, Form], hints: Mapping[str, str]) -> str | None:
    """The sentence, with the words as they were typed."""
    given: list[tuple[str, list[str]]] = []
    for word in words:
        if not _is_option(word):
            if not given and "" not in forms:
                return f"{word}: an option must stand before its value, as in --OPTION {word}; --help lists all options"
            if given:
                given[-1][1].append(word)
            continue
        name, equals = word.lstrip("-").replace("_", "-").partition("=")[:2]
        negated = name.startswith("no-") and forms.get(name[3:], Form(str)).kind is bool
        if name in ("h", "help"):
            continue
        if word.startswith("--") and negated:
            given.append((name[3:], []))
            continue
        if name not in forms or not word.startswith("--"):
            return _unknown(word.partition("=")[0], name, forms, hints)
        given.append((name, [word.partition("=")[2]] if equals else []))
    if "" in forms:  # a word after an option need not be its value
        return None
    faults = (_fault(name, values, forms[name]) for name, values in given)
    found = next(((name, fault) for (name, _), fault in zip(given, faults, strict=True) if fault), None)
    return None if found is None else ". ".join(filter(None, (found[1], hints.get(found[0]))))


def _is_option(word: str) -> bool:
    return word.startswith("-") and not Form(float).reads(word)


def _unknown(word: str, name: str, forms: Mapping[str, Form], hints: Mapping[str, str]) -> str:
    if name in hints:
        return f"{word}: there is no such option. {hints[name]}"
    close = closest(name, forms)
    meant = f"; did you mean {' or '.join('--' + one for one in close)}?" if close else "."
    form = " It takes values with spaces between them." * (len(close) == 1 and forms[close[0]].several)
    return f"{word}: there is no such option{meant}{form} --help lists all options"


def _fault(name: str, values: Sequence[str], form: Form) -> str | None:
    """What is wrong with the values of an option; None if nothing is."""
    option, typed = f"--{name}", " ".join(values)
    if form.kind is bool:
        return f"{option} {typed}: takes no value; type {option} or --no-{name}" if values else None
    if not values:
        return None if form.several else f"{option}: needs {form.expected()} after it"
    for value in values:
        if value == "None" or form.reads(value):
            continue
        parts = value.split(",")
        if form.several and len(parts) > 1 and all(map(form.reads, parts)):
            return f"{option} {typed}: needs spaces between its values; type {option} {' '.join(typed.split(','))}"
        close = difflib.get_close_matches(value, form.choices, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        return f"{option} {value}: must be {form.expected()}{meant}"
    if not form.several and len(values) > 1:
        return f"{option} {typed}: takes one value, and {values[1]} stands after it without an option of its own"
    return None


def closest(word: str, known: Iterable[str], most: int = 2) -> list[str]:
    """At most `most` of the known names that are most like `word`, best first."""
    return difflib.get_close_matches(word, sorted(known), n=most, cutoff=0.7)


def question(name: str, directory: pathlib.Path, commands: Iterable[str] = ()) -> str:
    """What to type instead of a name that no question in `directory` has, and none of `commands`."""
    known = {path.stem for path in directory.glob("*.py")} | {
        path.parent.name for path in directory.glob("*/__main__.py")
    }
    forms = {one: f"python -m experiments.{one}" for one in known if not one.startswith("_")}
    forms |= {one: f"python -m experiments {one}" for one in commands}
    close = closest(name.replace("-", "_"), forms)
    meant = f"did you mean {' or '.join(forms[one] for one in close)}? " if close else ""
    return f"there is no question of this name; {meant}python -m experiments lists all"
