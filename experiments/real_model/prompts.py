"""The questions that the model answers, a file of the user's own, and a short text that no model was trained on."""

import pathlib

from experiments.harness.runner import UsageError
from pgjax import _json
from pgjax._limits import read_whole

INSTRUCTION = "Answer in one short sentence. "
MOST_CHARACTERS = 400
MOST_PROMPTS = 100_000

TRAINING = (
    "Why is the sky blue?",
    "What do bees make?",
    "How does a boat float?",
    "What is a triangle?",
    "Why do we sleep?",
    "What is bread made of?",
    "Where do whales live?",
    "What does a baker do?",
    "Why do leaves fall in autumn?",
    "What is the sun?",
    "How do birds fly?",
    "What is a library for?",
    "Why is the sea salty?",
    "What do plants need to grow?",
    "What is snow?",
    "How does a candle burn?",
    "What is a map?",
    "Why do cats purr?",
    "What does a doctor do?",
    "What is a river?",
    "How do fish breathe?",
    "What is glass made of?",
    "Why do we laugh?",
    "What is a volcano?",
    "What does a clock show?",
    "Why do dogs bark?",
    "What is a bridge for?",
    "How is paper made?",
    "What is music?",
    "Why does ice float?",
    "What is a desert?",
    "What does a farmer do?",
    "How does a bicycle stay up?",
    "What is a shadow?",
    "Why do we cook food?",
    "What is an island?",
    "How does a seed become a tree?",
    "What is a mirror?",
    "Why is the night dark?",
    "What is wool?",
    "What does a teacher do?",
    "How does rain form?",
    "What is a friend?",
    "Why do we wear clothes?",
    "What is a wheel?",
    "What is thunder?",
    "How do spiders catch flies?",
    "What is a city?",
)

HELD_OUT = (
    "Why do stars twinkle?",
    "What is a garden?",
    "How does a kite fly?",
    "What is butter made of?",
    "Why do we dream?",
    "What does a pilot do?",
    "What is a mountain?",
    "How do bats find their way?",
    "What is a newspaper?",
    "Why do we have seasons?",
    "What is a forest?",
    "What does a carpenter do?",
    "How does soap clean?",
    "What is a key for?",
    "Why do onions make us cry?",
    "What is a lake?",
    "How do magnets work?",
    "What is a poem?",
    "Why is grass green?",
    "What is a ship?",
    "What does a nurse do?",
    "How is honey made?",
    "What is a holiday?",
    "Why do we yawn?",
)

# Written for this experiment.
HELD_OUT_TEXT = (
    "The ferry left the small harbour an hour late, because the captain had waited for the post. On deck two children "
    "counted the gulls that followed the ship, and lost count each time one of the birds dived. Their grandmother sat "
    "below with a book about clocks. She had read it before, but she liked the chapter on the pendulum, which explains "
    "why a long one swings slowly. When the island came into sight, the wind had turned and the water was calm. "
    "Nobody on the pier seemed to be in a hurry."
)


def read(path: pathlib.Path) -> list[str]:
    """The prompts of a file: one in each line, or the field `prompt` of each line of a .jsonl file.

    Raises:
        UsageError: the file cannot be read, or has fewer than four different prompts, or one that is too long.
    """
    try:
        lines = [line for line in read_whole(path).decode("utf-8-sig").splitlines() if line.strip()]
        if len(lines) > MOST_PROMPTS:
            raise ValueError(f"at most {MOST_PROMPTS} prompts are read, got {len(lines)}")
        found = [_json.loads(line)["prompt"] for line in lines] if path.suffix == ".jsonl" else lines
        found = list(dict.fromkeys(found))
    except (ValueError, KeyError, TypeError) as error:
        described = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UsageError(f"--prompts {path}: the file cannot be read ({described})") from error
    if len(found) < 4 or not all(isinstance(prompt, str) and 0 < len(prompt) <= MOST_CHARACTERS for prompt in found):
        raise UsageError(
            f"--prompts {path}: must hold at least 4 different prompts of at most {MOST_CHARACTERS} characters, got "
            f"{len(found)} prompts"
        )
    return found


def split(path: pathlib.Path | None) -> tuple[list[str], list[str]]:
    """The prompts for training and those that are held out: of a file every third one is held out."""
    if path is None:
        return [INSTRUCTION + question for question in TRAINING], [INSTRUCTION + question for question in HELD_OUT]
    found = read(path)
    held_out = found[2::3]
    return [prompt for prompt in found if prompt not in held_out], held_out
