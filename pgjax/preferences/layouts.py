"""The layouts in which other tools write preferences, each read into `Preference` records.

    {"prompt", "chosen", "rejected", …}                    ours and TRL's, as texts or as lists of messages
    {"chosen", "rejected"}                                 TRL's implicit prompt: both begin with the same text
    {"prompt", "answer1", "answer2", "comparison", …}      Label Studio's short export ("JSON-MIN"), or a table of pairs
    {"data": {"prompt", …}, "annotations": [...], …}       Label Studio's full export, any number of annotations
    {"query", "sample0", "sample1", …, "best", …}          the best of k answers (Ziegler et al. 2019)

Entries with other names are kept in `Preference.extra`.

Sources: TRL, docs/source/dataset_formats.md; Label Studio, the template "Human Preference collection for RLHF" and the
tag "Pairwise"; Ziegler et al. 2019, lm_human_preferences/label_types.py.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from pgjax._doors import readable
from pgjax.preferences.preference import NAMES, TIES, Preference, RecordError, Tie, _described

Message = dict[str, str]
Chat = Callable[[Sequence[Message]], str]

_FIRST = ("left", "answer1", "1", "first")
_SECOND = ("right", "answer2", "2", "second")
_EQUAL = ("tie", "equal", "both", "none", "neither")
_CHOICES = ("comparison", "choice", "selected", "preferred", "label")


@readable
def plain_chat(messages: Sequence[Message]) -> str:
    """The text of messages without any model's template: one message is its content, several are `role: content` lines.

    Example:
        >>> from pgjax.preferences import layouts
        >>> layouts.plain_chat([{"role": "user", "content": "Hello"}])
        'Hello'
        >>> layouts.plain_chat([{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}])
        'user: Hello\\nassistant: Hi'
    """
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


@readable
def preferences_of(found: dict[str, Any], chat: Chat = plain_chat) -> list[Preference]:
    """The preferences of one JSON object in any of the layouts; an export may hold none or several in one object.

    Args:
        found: the object.
        chat: turns a list of messages into a text.

    Raises:
        RecordError: if the object has none of the layouts, or an entry is wrong.
    """
    if "chosen" in found or "rejected" in found:
        return [_of_pair(found, chat)]
    if "annotations" in found and "data" in found:
        return _of_annotations(found)
    if "answer1" in found or "answer2" in found:
        return [_of_answers(found)]
    if "sample0" in found or "best" in found:
        return [_of_samples(found)]
    expected = "'chosen' and 'rejected'; 'answer1' and 'answer2'; 'data' and 'annotations'; or 'sample0' and 'best'"
    raise RecordError("entries", expected=expected, found=f"names {_described(', '.join(sorted(found)))}")


def _entry(found: dict[str, Any], name: str, where: str = "") -> Any:
    if name not in found:
        raise RecordError(f"{where}{name}", expected="an entry of this name", found="none")
    return found[name]


def _text(found: dict[str, Any], name: str, where: str = "") -> str:
    value = _entry(found, name, where)
    if not isinstance(value, str):
        raise RecordError(f"{where}{name}", expected="a text", found=_described(value))
    return value


def _make(found: dict[str, Any], used: Sequence[str], **entries: Any) -> Preference:
    """A record of `entries` and of those named like ours in `found`; `used` names must not enter `extra`."""
    ours = {name: found[name] for name in NAMES if name in found and name not in used and name not in entries}
    extra = {name: value for name, value in found.items() if name not in used and name not in NAMES}
    values = entries | ours
    if isinstance(values.get("tie"), bool):
        values["tie"] = "equal" if values["tie"] else None
    return Preference(**values, extra=extra)


def _of_pair(found: dict[str, Any], chat: Chat) -> Preference:
    used = ("prompt", "chosen", "rejected")
    chosen, rejected = _entry(found, "chosen"), _entry(found, "rejected")
    if isinstance(chosen, list) or isinstance(rejected, list):
        prompt, chosen, rejected = _of_messages(found, chat)
    elif "prompt" in found:
        prompt = found["prompt"]
        prompt = chat(_messages("prompt", prompt)) if isinstance(prompt, list) else prompt
    else:
        chosen, rejected = _text(found, "chosen"), _text(found, "rejected")
        prompt = _common_start(chosen, rejected)
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    return _make(found, used, prompt=prompt, chosen=chosen, rejected=rejected)


def _common_start(first: str, second: str) -> str:
    """The implicit prompt of two texts. A space before the first difference belongs to the answers, as in TRL."""
    if first == second:
        raise RecordError("rejected", expected="another text than 'chosen', as there is no 'prompt'", found="the same")
    # Each answer keeps at least one character.
    pairs = zip(first[:-1], second[:-1])
    length = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)) - 1)
    return first[: max(length, 0)].removesuffix(" ")


def _of_messages(found: dict[str, Any], chat: Chat) -> tuple[str, str, str]:
    chosen, rejected = (_messages(name, found[name]) for name in ("chosen", "rejected"))
    prompt: Any = found.get("prompt")
    if isinstance(prompt, list):
        return chat(_messages("prompt", prompt)), chat(chosen), chat(rejected)
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    before = chat(chosen[:shared]) if shared else prompt
    if before is None:
        raise RecordError("prompt", expected="a prompt, or messages that both answers begin with", found="neither")
    if shared and prompt not in (None, chosen[shared - 1]["content"]):
        raise RecordError("prompt", expected="the last message that both answers begin with", found=_described(prompt))
    return before, chat(chosen[shared:]), chat(rejected[shared:])


def _messages(name: str, value: Any) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise RecordError(name, expected="a list of messages", found=_described(value))
    for i, message in enumerate(value):
        if not isinstance(message, dict):
            raise RecordError(f"{name}[{i}]", expected="a message with role and content", found=_described(message))
        for part in ("role", "content"):
            _text(message, part, f"{name}[{i}].")
    return value


def _of_choice(name: str, word: Any) -> tuple[bool, Tie | None]:
    """Whether the second answer was chosen, and the kind of tie."""
    text = str(word).strip().lower().replace(" ", "_") if isinstance(word, str | int) else None
    if text in _FIRST + _SECOND and not isinstance(word, bool):
        return text in _SECOND, None
    if text in _EQUAL + TIES:
        return False, "both_bad" if text in ("both_bad", "none", "neither") else "equal"
    expected = f"one of {', '.join(map(repr, (*_FIRST, *_SECOND, 'tie', 'both_bad')))}"
    raise RecordError(name, expected=expected, found=_described(word))


def _selected(name: str, value: Any) -> Any:
    """The word of a choice, which Label Studio writes as a word, `{"selected": word}` or `{"choices": [word]}`."""
    if isinstance(value, dict):
        for part in ("selected", "choices"):
            if part in value:
                return _selected(f"{name}.{part}", value[part])
        raise RecordError(name, expected="an entry 'selected' or 'choices'", found=_described(value))
    if isinstance(value, list):
        if len(value) != 1:
            raise RecordError(name, expected="one choice", found=_described(value))
        return value[0]
    return value


def _of_answers(found: dict[str, Any]) -> Preference:
    names = [name for name in _CHOICES if name in found]
    if len(names) != 1:
        expected = f"one of {', '.join(map(repr, _CHOICES))}"
        raise RecordError("entries", expected=expected, found=", ".join(names) or "none")
    swap, tie = _of_choice(names[0], _selected(names[0], found[names[0]]))
    used = ("prompt", "answer1", "answer2", names[0])
    return _make(found, used, **_pair_of_answers(found, swap, tie))


def _pair_of_answers(found: dict[str, Any], swap: bool, tie: Tie | None, where: str = "") -> dict[str, Any]:
    answers = [_text(found, name, where) for name in ("answer1", "answer2")]
    chosen, rejected = reversed(answers) if swap else answers
    return {"prompt": _text(found, "prompt", where), "chosen": chosen, "rejected": rejected, "tie": tie}


def _of_annotations(found: dict[str, Any]) -> list[Preference]:
    """One record for each annotation that was not skipped. Its `extra` names the task and the annotation."""
    data, annotations = found["data"], found["annotations"]
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise RecordError("entries", expected="an object 'data' and a list 'annotations'", found="other types")
    records = []
    for i, annotation in enumerate(annotations):
        where = f"annotations[{i}]."
        if not isinstance(annotation, dict):
            raise RecordError(where[:-1], expected="a JSON object", found=_described(annotation))
        if annotation.get("was_cancelled"):
            continue
        swap, tie = _of_result(f"{where}result", _entry(annotation, "result", where))
        numbers = {"task": found.get("id"), "annotation": annotation.get("id")}
        by = annotation.get("completed_by")
        by = by.get("email", by.get("id")) if isinstance(by, dict) else by
        entries = _pair_of_answers(data, swap, tie, "data.") | {"time_s": annotation.get("lead_time")}
        entries["annotator"] = None if by is None else str(by)
        kept = data | {name: number for name, number in numbers.items() if number is not None}
        records.append(_make(kept, ("prompt", "answer1", "answer2"), **entries))
    return records


def _of_result(name: str, result: Any) -> tuple[bool, Tie | None]:
    """The choice of an annotation: that of its "pairwise" field, or of its "choices" field if there is no other.

    A tie among the choices counts more than the side beside it; other words there answer another question.
    """
    if not isinstance(result, list):
        raise RecordError(name, expected="a list", found=_described(result))
    found = {}
    for i, part in enumerate(result):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("pairwise", "choices"):
            found.setdefault(kind, []).append(
                (f"{name}[{i}].value", _selected(f"{name}[{i}].value", part.get("value")))
            )
    choices = found.get("choices", [])
    ties = [choice for choice in choices if str(choice[1]).lower() in _EQUAL + TIES]
    usable = ties or found.get("pairwise") or choices
    if not usable:
        raise RecordError(name, expected="a result of type 'pairwise' or 'choices'", found="none")
    return _of_choice(*usable[0])


def _of_samples(found: dict[str, Any]) -> Preference:
    numbers = sorted(int(match[1]) for name in found if (match := re.fullmatch(r"sample(\d{1,4})", name)))
    if len(numbers) < 2 or numbers != list(range(len(numbers))):
        raise RecordError("entries", expected="two or more answers sample0, sample1, …", found=f"numbers {numbers}")
    answers = [_text(found, f"sample{i}") for i in numbers]
    best = _entry(found, "best")
    if not isinstance(best, int) or isinstance(best, bool) or not 0 <= best < len(answers):
        raise RecordError("best", expected=f"an integer in [0, {len(answers) - 1}]", found=_described(best))
    chosen = answers.pop(best)
    used = ("query", "best", *(f"sample{i}" for i in numbers))
    entries = {"prompt": _text(found, "query"), "chosen": chosen, "rejected": answers[-1]}
    return _make(found, used, **entries, ranking=(chosen, *answers), places=1)
