"""The course of ideas on one page: each with its equation, a short program that ran, its figure and its command.

Claim    Every idea of the course fits into a program of a few lines.
Command  python -m experiments.lecture
         python -m experiments.lecture --only gradient reinforce
Shows    `lecture.html`: decision problems from a maze to a data centre, imitation, the objective, three forms of its
         gradient, why the environment's probabilities are not needed, REINFORCE, its variance and three cures, steps
         that are too large, flat places, scoring text, preferences, learning from preferences, and loss of diversity.
         The page is one file and loads nothing else.
Expect   Under two minutes on two CPU cores.
Source   Each idea names its source.
"""

import dataclasses

from experiments.harness import runner
from experiments.lecture import page
from experiments.lecture.course import IDEAS
from experiments.lecture.ideas import Lesson, lesson_of

PAGE = "lecture.html"


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of the lecture."""

    only: tuple[str, ...] = ()
    """The names of the ideas that the page contains; all of them if none is given."""

    def validate(self) -> None:
        known = [idea.name for idea in IDEAS]
        unknown = [name for name in self.only if name not in known]
        runner.require(not unknown, "--only", " ".join(unknown), f"among {', '.join(known)}")

    @property
    def chosen(self) -> list:
        return [idea for idea in IDEAS if not self.only or idea.name in self.only]


TINY = Config(only=("objective", "gradient", "flat", "preferences"))


def run(config: Config, recorder: runner.Recorder) -> list[Lesson]:
    """Execute the programs one after another and write the page."""
    lessons = []
    with recorder.progress(len(config.chosen), "ideas", "ideas") as progress:
        for idea in config.chosen:
            lesson = lesson_of(idea)
            lessons.append(lesson)
            recorder.row(quantity=idea.title, seconds=lesson.seconds)
            recorder.note(f"{idea.title}: {lesson.finding}")
            progress.advance(1, idea.name)
    path = recorder.write(PAGE, page.write(lessons))
    recorder.say(f"Open {PAGE} in a browser: {path.name} holds all figures and needs nothing else.")
    return lessons


def plot(lessons: list[Lesson], recorder: runner.Recorder) -> None:
    for lesson in lessons:
        recorder.figure(lesson.idea.draw(lesson.result), lesson.idea.name)
