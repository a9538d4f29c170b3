"""The lecture: what its page holds, that its programs find what the text says, and that an unknown idea is refused."""

import html
import re

import numpy as np
import pytest

from experiments import lecture
from experiments.harness import runner
from experiments.lecture import course, diversity, ideas, trouble


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    output = tmp_path_factory.mktemp("results")
    directory = runner.execute("lecture", lecture.TINY, lecture.run, lecture.plot, output_dir=output)
    return (directory / lecture.PAGE).read_text(encoding="utf-8"), directory


def test_the_page_holds_every_chosen_idea_with_its_program_and_figure(page):
    text, directory = page
    for idea in lecture.TINY.chosen:
        section = re.search(rf'<section id="{idea.name}">.*?</section>', text, re.DOTALL).group()
        assert html.escape(ideas.code_of(idea.program)) in section
        assert "data:image/png;base64," in section
        assert (directory / f"{idea.name}.png").stat().st_size > 10_000
    assert len(re.findall("<section", text)) == len(lecture.TINY.chosen)


def test_the_page_fetches_nothing(page):
    text, _ = page
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text) and "<script" not in text


def test_ideas_have_names_of_their_own_and_short_programs():
    assert len({idea.name for idea in course.IDEAS}) == len(course.IDEAS)
    assert max(len(ideas.code_of(idea.program).splitlines()) for idea in course.IDEAS) <= 22


def test_a_flat_place_holds_up_for_longer_where_the_start_is_flatter():
    curves = trouble.flat_places()["curves"]
    assert np.all(np.diff([trouble.first_above_half(curve) for curve in curves]) > 0)


def test_only_a_penalty_keeps_the_answers_different():
    found = diversity.lose_diversity()
    start, end = found["entropy"][:, 0], found["entropy"][:, -1]
    np.testing.assert_allclose(start, 6 * np.log(4), rtol=1e-5)
    assert end[0] < 0.2 and found["points"][0, -1] > 2.9
    # With a penalty the exact entropy ends near that of the best policy.
    np.testing.assert_allclose(end[1:], found["best"], atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("idea", course.IDEAS, ids=lambda idea: idea.name)
def test_every_program_runs_and_is_drawn(idea):
    lesson = ideas.lesson_of(idea)
    assert lesson.finding and "nan" not in lesson.finding and idea.draw(lesson.result).get_suptitle()


def test_an_unknown_idea_is_refused(tmp_path):
    with pytest.raises(runner.UsageError, match="--only loss: must be among decisions, navigation"):
        runner.execute("lecture", lecture.Config(only=("loss",)), lecture.run, output_dir=tmp_path)
