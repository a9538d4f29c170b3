"""Files in the layouts of other tools become the same records as ours."""

import json

import pytest

from pgjax.preferences import Preference, RecordError, records
from pgjax.preferences.layouts import preferences_of

SKY = Preference(prompt="The sky is", chosen=" blue.", rejected=" green.")
USER = {"role": "user", "content": "The sky is"}
BLUE, GREEN = ({"role": "assistant", "content": f" {colour}."} for colour in ("blue", "green"))
ANSWERS = {"prompt": "The sky is", "answer1": " green.", "answer2": " blue."}


@pytest.mark.parametrize(
    "line",
    [
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]},
        {"chosen": [USER, BLUE], "rejected": [USER, GREEN]},
        {"prompt": "The sky is", "chosen": [USER, BLUE], "rejected": [USER, GREEN]},
        {"prompt": "The sky is", "chosen": [BLUE], "rejected": [GREEN]},
        ANSWERS | {"comparison": "right"},
        ANSWERS | {"comparison": {"selected": "answer2"}},
        ANSWERS | {"label": 2},
    ],
)
def test_every_layout_gives_the_same_record(line):
    assert preferences_of(line) == [SKY]


def test_our_entries_and_unknown_ones_are_kept():
    line = ANSWERS | {"choice": "tie", "annotator": "ada", "seed": 3, "lead": 1.5}
    (found,) = preferences_of(line)
    assert (found.tie, found.annotator, found.seed, found.extra) == ("equal", "ada", 3, {"lead": 1.5})
    assert (found.chosen, found.rejected) == (" green.", " blue.")
    assert preferences_of(SKY.as_json() | {"tie": True})[0].tie == "equal"
    assert preferences_of(SKY.as_json() | {"tie": False, "id": [1]})[0] == Preference(
        prompt="The sky is", chosen=" blue.", rejected=" green.", extra={"id": [1]}
    )


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"), [("ab", "a", ""), ("a", "", ""), ("a b", "a c", "a"), ("x1", "x2", "x")]
)
def test_the_implicit_prompt_leaves_each_answer_a_character(chosen, rejected, prompt):
    (found,) = preferences_of({"chosen": chosen, "rejected": rejected})
    assert (found.prompt, found.prompt + found.chosen, found.prompt + found.rejected) == (prompt, chosen, rejected)


def test_several_messages_become_lines_with_roles():
    system = {"role": "system", "content": "Be short."}
    (found,) = preferences_of({"chosen": [system, USER, BLUE], "rejected": [system, USER, GREEN]})
    assert found.prompt == "system: Be short.\nuser: The sky is"


def annotation(*results, **more):
    return {"id": 7, "result": list(results), "completed_by": {"id": 1, "email": "a@b"}, "lead_time": 4.5, **more}


def pairwise(side):
    return {"type": "pairwise", "value": {"selected": side}, "from_name": "pw", "to_name": "answer1,answer2"}


def choices(word):
    return {"type": "choices", "value": {"choices": [word]}, "from_name": "both", "to_name": "prompt"}


def test_a_full_export_of_label_studio_gives_a_record_for_each_annotation(tmp_path):
    task = {
        "id": 5,
        "data": ANSWERS | {"seed": 4, "topic": "sky"},
        "annotations": [
            annotation(pairwise("right"), choices("helpful")),
            annotation(pairwise("left"), choices("both_bad")),
            annotation(pairwise("left"), was_cancelled=True),
        ],
    }
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task, {"id": 6, "data": ANSWERS, "annotations": []}], indent=2))
    first, second = records.read(path)
    extra = {"topic": "sky", "task": 5, "annotation": 7}
    assert first == Preference(
        prompt="The sky is", chosen=" blue.", rejected=" green.", annotator="a@b", time_s=4.5, seed=4, extra=extra
    )
    assert second.tie == "both_bad"


def test_the_best_of_k_answers_is_a_ranking_whose_first_place_is_known():
    (found,) = preferences_of({"query": "q", "sample0": "a", "sample1": "b", "sample2": "c", "best": 1, "t": 0.7})
    assert (found.prompt, found.chosen, found.ranking, found.places) == ("q", "b", ("b", "a", "c"), 1)
    assert found.extra == {"t": 0.7}


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (ANSWERS, "entries"),
        (ANSWERS | {"choice": "left", "label": "left"}, "entries"),
        (ANSWERS | {"choice": "middle"}, "choice"),
        (ANSWERS | {"choice": {"selected": ["left", "right"]}}, "choice.selected"),
        (ANSWERS | {"choice": "left", "answer1": 3}, "answer1"),
        ({"query": "q", "sample0": "a", "sample2": "b", "best": 0}, "entries"),
        ({"query": "q", "sample0": "a", "sample1": "b", "best": 2}, "best"),
        ({"query": "q", "sample0": "a", "sample1": "b"}, "best"),
        ({"chosen": "same", "rejected": "same"}, "rejected"),
        ({"chosen": [BLUE], "rejected": [GREEN]}, "prompt"),
        ({"prompt": "No", "chosen": [USER, BLUE], "rejected": [USER, GREEN]}, "prompt"),
        ({"prompt": [USER], "chosen": [BLUE], "rejected": []}, "rejected"),
        ({"prompt": [{"role": "user"}], "chosen": [BLUE], "rejected": [GREEN]}, "prompt[0].content"),
        ({"prompt": ["hello"], "chosen": [BLUE], "rejected": [GREEN]}, "prompt[0]"),
        ({"data": ANSWERS, "annotations": [annotation()]}, "annotations[0].result"),
        ({"data": ANSWERS, "annotations": [annotation(pairwise("up"))]}, "annotations[0].result[0].value"),
        ({"data": {}, "annotations": [annotation(pairwise("left"))]}, "data.answer1"),
        ({"data": 1, "annotations": 2}, "entries"),
    ],
)
def test_a_wrong_entry_is_named(line, key):
    with pytest.raises(RecordError) as caught:
        preferences_of(line)
    assert caught.value.key == key
