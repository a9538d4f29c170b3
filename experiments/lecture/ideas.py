"""The record of one idea of the lecture, and the execution of its program."""

import inspect
import textwrap
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Idea(NamedTuple):
    """One idea of the course.

    Attributes:
        name: the word after `--only`.
        title: the heading.
        text: paragraphs before the equation.
        equation: lines of mathematics in plain characters.
        program: a function without arguments, whose body the page shows and whose result is drawn.
        draw: result → the figure.
        finding: result → one sentence with the numbers that came out.
        command: the experiment that goes deeper; empty as long as there is none.
        source: author and year.
    """

    name: str
    title: str
    text: tuple[str, ...]
    equation: str
    program: Callable[[], Any]
    draw: Callable[[Any], Any]
    finding: Callable[[Any], str]
    command: str
    source: str


class Lesson(NamedTuple):
    """An idea whose program has run."""

    idea: Idea
    code: str
    result: Any
    finding: str
    seconds: float


def lesson_of(idea: Idea) -> Lesson:
    """Run the program of an idea once."""
    start = time.perf_counter()
    result = idea.program()
    seconds = time.perf_counter() - start
    return Lesson(
        idea=idea,
        code=code_of(idea.program),
        result=result,
        finding=idea.finding(result),
        seconds=seconds,
    )


def code_of(program: Callable) -> str:
    """The lines of a function's body, without its first line, its docstring and its indentation."""
    _, _, body = inspect.getsource(program).partition("\n")
    body = textwrap.dedent(body)
    if program.__doc__ and body.startswith('"""'):
        body = body[body.index('"""', 3) + 3 :].lstrip("\n")
    return body.rstrip()
