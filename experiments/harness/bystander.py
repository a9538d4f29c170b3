"""The recorder of every process but the first of a run in several processes: it keeps nothing and says nothing."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from experiments.harness import interruption, team
from experiments.harness.progress import Progress
from experiments.harness.recorder import Recorder


def recorder_of(experiment: str, config: Any, *, tiny: bool, **place: Any) -> Recorder:
    """The recorder of this process; the arguments are those of `Recorder`."""
    if team.current.writes:
        return Recorder(experiment, config, tiny=tiny, **place)
    return Bystander(experiment, config, tiny=tiny)


class Bystander(Recorder):
    """A recorder with a folder of its own, which is removed at the end of the process."""

    writes = False

    def __init__(self, experiment: str, config: Any, *, tiny: bool):
        super().__init__(experiment, config, output_dir=team.current.folder() / "results", tiny=tiny)

    @property
    def resumes(self) -> pathlib.Path | None:
        """The folder with copies of the files of the run that is resumed, or None."""
        return getattr(self.config, "resume", None)

    def _close(self, error: BaseException | None) -> None:
        if self._metrics is not None:
            self._metrics.close()
        self._place.release()

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Drop the line."""

    def resumable(self, option: str = "--resume") -> None:
        """Know the command that resumes the run, from process 0."""
        interruption.current.last_words = team.current.read("to resume")

    def progress(self, total: int, description: str, unit: str = "steps", done: int = 0) -> Progress:
        return Progress(total, description, unit, quiet=True, done=done)

    def figure(self, figure: Any, name: str) -> pathlib.Path:
        """Drop the figure."""
        return self.path(name)

    def animation(self, save: Callable[[pathlib.Path], None], name: str) -> None:
        """Drop the animation."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def write_summary(self, status: str = "drawing", error: str | None = None) -> None:
        """Write no summary."""
