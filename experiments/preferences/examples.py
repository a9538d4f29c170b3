"""Example pairs from plain text, without a trained model: two character models of different order continue a sentence.

A model of order k draws the next character among those that follow the last k characters anywhere in the text:

    P(c | c₁ … c_k) = number of times that c follows c₁ … c_k / number of times that c₁ … c_k occurs.

Its samples read the more like the text the larger k is, so a person has something to prefer.

Source: Shannon 1948 (A mathematical theory of communication), section 3.
"""

import collections
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pgjax.datasets import text

ORDERS = (2, 3, 4, 6)
PROMPT_CHARACTERS = 32
ANSWER_CHARACTERS = 64


class CharacterModels:
    """The models of the orders 1 … `most`, of the text `pages`."""

    def __init__(self, pages: str, most: int):
        self._next: Mapping[str, list[str]] = collections.defaultdict(list)
        for order in range(1, most + 1):
            for place in range(len(pages) - order):
                self._next[pages[place : place + order]].append(pages[place + order])

    def sample(self, generator: random.Random, order: int, prompt: str, length: int) -> str:
        """`length` characters behind `prompt`, or fewer: the sample ends behind a full stop.

        Where the text lacks the last k characters, the longest part of them that it contains takes their place.

        Raises:
            ValueError: the text lacks the last character of the prompt.
        """
        written = prompt
        while len(written) < len(prompt) + length:
            found = (written[-shorter:] for shorter in range(order, 0, -1) if written[-shorter:] in self._next)
            context = next(found, None)
            if context is None:
                raise ValueError(f"the text of the model must contain the character {written[-1:]!r}")
            written += generator.choice(self._next[context])
            if written.endswith("."):
                break
        return written[len(prompt) :]


def make(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` records for `pairs.write`, each with the start of a real sentence and two sampled continuations.

    The pages are the help topics of Python that pgjax holds. The sentences come from every fifth page, and the models
    from the other pages.
    """
    pages = [" ".join(page.text.split()) for page in text.topics()]
    held_out = " ".join(pages[::5])
    rest = " ".join(page for number, page in enumerate(pages) if number % 5)
    models = CharacterModels(rest, max(ORDERS))
    sentences = re.findall(r"[A-Z][a-z ,'-]{60,160}\.", held_out)
    generator = random.Random(f"example pairs {seed}")
    for _ in range(count):
        sentence = generator.choice(sentences)
        prompt = sentence[: sentence.rindex(" ", 0, PROMPT_CHARACTERS) + 1]
        orders = generator.sample(ORDERS, 2)
        answers = [models.sample(generator, order, prompt, ANSWER_CHARACTERS) for order in orders]
        policies = [f"characters, order {order}" for order in orders]
        yield {"prompt": prompt, "answers": answers, "policy": policies, "seed": seed}
