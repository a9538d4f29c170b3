"""A training in several processes ends as one process would, and no end of one leaves the others waiting.

Run it with `-m slow`; every training starts two to four processes of this machine, in ten to twenty seconds.
"""

import os
import re
import signal
import time

import pytest
from teams import end, finished, start, wait_until
from trainings import newest_arrays, same_checkpoint, summary, without_times

from experiments.harness.progress import PLAIN_INTERVAL
from pgjax.saving import rotation

pytestmark = pytest.mark.slow

SMALL = ["--env", "CartPole-v1", "--estimator", "reinforce_moving_average", "--hidden", "8", "--num-episodes", "16"]
SMALL += ["--num-seeds", "2", "--eval-episodes", "4", "--no-references", "--no-gif", "--schedule-updates", "6"]
ENDLESS = [*SMALL, "--num-updates", "1000000", "--checkpoint-every", "0", "--run-name", "run"]
SECONDS = 10.0  # from the end of one process to the end of the others
# Every device would draw its own episodes, so that they depended on the number of devices.
KEYS_OF_EACH_DEVICE = """
import jax
split = jax.random.split
def of_each_device(key, num=2):
    if num != 16:
        return split(key, num)
    devices = jax.device_count()
    return jax.numpy.concatenate([split(jax.random.fold_in(key, d), num // devices) for d in range(devices)])
jax.random.split = of_each_device
"""
# The process of this number raises an error after its second chunk.
RAISES = """
hear = keeping.Keeper.hear
def hear_or_raise(self, metrics, states):
    hear(self, metrics, states)
    if team.current.index == {index} and self.thinned.done > 1:
        raise RuntimeError("a fault of this test")
keeping.Keeper.hear = hear_or_raise
"""


# The processes end with other parameters, as if the processor of one rounded differently.
PARTS = """
finish = keeping.Keeper.finish
def part(self, states):
    import jax
    scale = 1.0 + 1e-6 * team.current.index
    finish(self, states._replace(params=jax.tree.map(lambda x: x * scale, states.params)))
keeping.Keeper.finish = part
"""
# Process 1 never ends its third chunk.
STICKS = """
import time
hear = keeping.Keeper.hear
def hear_and_stick(self, metrics, states):
    hear(self, metrics, states)
    if team.current.index == 1 and self.thinned.done > 1:
        time.sleep(1000)
keeping.Keeper.hear = hear_and_stick
"""
# The process of this number ends without a word when process 1 has entered, and process 2 has not.
GONE = """
import os, threading, time
from experiments.harness import door
if sys.argv[sys.argv.index("--distributed") + 1].endswith(",{index}"):
    enter, Door = door.enter, door.Door
    def leave(entered=lambda: True):
        while not entered():
            time.sleep(0.05)
        time.sleep(0.5)
        os._exit(9)
    def enter_and_leave(*given):
        enter(*given)
        leave()
    def open_and_leave(*given):
        made = Door(*given)
        threading.Thread(target=leave, args=(lambda: 1 in made.entered,)).start()
        return made
    door.enter, door.Door = enter_and_leave, open_and_leave
"""


def trained(folder, count, *arguments, **more):
    """The folder of a complete training in `count` processes. All but the first process are silent."""
    place = ["--output-dir", folder]
    ends = finished(start(count, [*arguments, *place], **more))
    for out, err, code in ends:
        assert code == 0, (out, err)
    assert all(not err and not out for out, err, _ in ends[1:]), ends[1:]
    (found,) = (folder / "train").iterdir()
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Six updates in one process."""
    return trained(tmp_path_factory.mktemp("alone"), 1, *SMALL, "--num-updates", "6", "--run-name", "run")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("two"), 2, *SMALL, "--num-updates", "6", "--run-name", "run")


def test_two_processes_train_as_one_and_write_one_folder(alone, two):
    same_checkpoint(alone, two)
    assert without_times(alone) == without_times(two)
    names = lambda folder: {path.name for path in folder.rglob("*") if not path.name.startswith("state-")}
    assert names(alone) == names(two)
    assert summary(two)["status"] == "complete"


def test_keys_of_each_process_would_be_seen(tmp_path):
    """The wrong twin of the test above."""
    few = [*SMALL, "--num-updates", "1", "--run-name", "run"]
    made = [trained(tmp_path / str(count), count, *few, patch=KEYS_OF_EACH_DEVICE) for count in (1, 2)]
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        same_checkpoint(*made)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 4)])
def test_a_run_goes_on_in_another_number_of_processes(alone, tmp_path, before, after):
    first = trained(tmp_path, before, *SMALL, "--num-updates", "3", "--run-name", "run")
    assert max(rotation.numbered(first)) == 3
    # Only process 0 sees the folder of the run; the others have no such file.
    folders = [tmp_path, *(tmp_path / f"elsewhere-{index}" for index in range(1, after))]
    for folder in folders[1:]:
        folder.mkdir()
    words = ["--resume", "train/run", "--num-updates", "6"]
    ends = finished(start(after, words, folders=folders, own={0: ("--output-dir", tmp_path)}))
    assert [code for *_, code in ends] == [0] * after, ends
    assert not [path for folder in folders[1:] for path in folder.iterdir()]
    same_checkpoint(alone, first)
    assert without_times(alone) == without_times(first)


@pytest.fixture
def endless(tmp_path):
    """Two processes in the middle of a training, and the folder of its files while it runs."""
    processes = start(2, [*ENDLESS, "--output-dir", tmp_path])
    partial = tmp_path / "train" / ".run.partial"
    wait_until(lambda: max(rotation.numbered(partial), default=0) > 3, processes=processes)
    yield processes, partial
    end(processes)


def ended(processes):
    """The ends of the processes, and the seconds until the last one."""
    began = time.monotonic()
    ends = finished(processes, seconds=30)
    return ends, time.monotonic() - began


def test_a_signal_to_one_process_stops_all_after_the_same_chunk(endless, tmp_path):
    processes, partial = endless
    os.kill(processes[1].pid, signal.SIGTERM)
    ends, seconds = ended(processes)
    assert [code for *_, code in ends] == [75, 75] and seconds < SECONDS, (seconds, ends)
    kept = partial.with_name("run-incomplete")
    assert "interrupted by SIGTERM" in ends[0][1] and f"--resume {kept}" in ends[0][1] and not ends[1][1]
    done = max(rotation.numbered(kept))
    assert summary(kept)["status"] == "interrupted"
    # One process goes on from there, and ends as one process alone does.
    goal = str(done + 2)
    (again,) = finished(start(1, ["--resume", kept, "--num-updates", goal, "--output-dir", tmp_path]))
    assert again[2] == 0, again
    whole = trained(tmp_path / "whole", 1, *SMALL, "--num-updates", goal, "--run-name", "run")
    same_checkpoint(whole, tmp_path / "train" / "run")


@pytest.mark.parametrize("killed", [0, 1])
def test_the_others_end_when_a_process_is_killed(endless, killed):
    processes, partial = endless
    os.kill(processes[killed].pid, signal.SIGKILL)
    ends, seconds = ended(processes)
    out, err, code = ends[1 - killed]
    assert seconds < SECONDS and code == 75, (seconds, out, err)
    assert f"interrupted by the end of another process: process {killed} of 2 was lost" in err and "--resume" in err
    assert "Check failure stack trace" not in err, "this is a report of JAX"
    assert newest_arrays(partial.with_name("run-incomplete") if killed else partial)


def test_a_second_run_on_the_same_port_ends_and_leaves_the_first_alone(endless, tmp_path):
    processes, partial = endless
    began, done = time.monotonic(), max(rotation.numbered(partial))
    words = [*SMALL, "--output-dir", tmp_path / "second"]
    ends = finished(start(2, words, port=processes[0].port), seconds=60)
    assert [code for *_, code in ends] == [2, 2] and time.monotonic() - began < 40, ends
    assert "process 0 cannot listen on port" in ends[0][1] and "choose another port" in ends[0][1]
    assert "process 1 was turned away" in ends[1][1] and "this one belongs to another run" in ends[1][1]
    later = lambda: max(rotation.numbered(partial)) > done and time.monotonic() - began > PLAIN_INTERVAL + 2
    wait_until(later, processes=processes)
    os.kill(processes[0].pid, signal.SIGTERM)
    first, other = finished(processes, seconds=30)
    assert first[2] == other[2] == 75
    assert re.search(r"^training 2 runs: [\d,]+ of 1,000,000 updates", first[1], re.MULTILINE), "progress, in a pipe"


@pytest.mark.parametrize("index", [0, 1])
def test_an_error_of_one_process_ends_the_others(tmp_path, index):
    processes = start(2, [*ENDLESS, "--output-dir", tmp_path], patch=RAISES.format(index=index))
    try:
        wait_until(lambda: any(one.poll() is not None for one in processes))
        ends, seconds = ended(processes)
    finally:
        end(processes)
    assert seconds < SECONDS and [code for *_, code in ends] == [70, 70], (seconds, ends)
    own, other = ends[index][1], ends[1 - index][1]
    assert "Traceback" in own and "a fault of this test" in own
    assert f"process {index} of 2 has ended with" in other and "a fault of this test" in other and "--resume" in other
    assert newest_arrays(tmp_path / "train" / "run-incomplete")


def test_the_watchdog_ends_all_when_one_sticks(tmp_path):
    words = [*ENDLESS, "--output-dir", tmp_path, "--distributed-watchdog", "20"]
    ends = finished(start(2, words, patch=STICKS), 120)
    assert [code for *_, code in ends] == [75, 75], ends
    assert any("no chunk of updates has ended for 20 s" in err and "--resume" in err for _, err, _ in ends), ends
    # Process 0 ends in order if the watchdog of process 1 was the first.
    (folder,) = (tmp_path / "train").iterdir()
    assert newest_arrays(folder)


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_is_lost_before_all_have_met_ends_the_others(tmp_path, index):
    processes = start(3, [*SMALL, "--output-dir", tmp_path], patch=GONE.format(index=index), only=[0, 1])
    ends = finished(processes, seconds=60)
    assert [code for *_, code in ends] == ([9, 75] if index == 0 else [75, 9]), ends
    assert f"process {index} of 3 was lost before the run began" in ends[1 - index][1], ends
    assert "Check failure stack trace" not in ends[1 - index][1]


def test_a_process_that_never_comes_is_named_and_other_options_are_refused(tmp_path):
    words = [*SMALL, "--output-dir", tmp_path, "--distributed-timeout", "3"]
    ((_, err, code),) = finished(start(2, words, only=[0]))
    assert (
        code == 75
        and "waiting up to 3 s for process 1 to reach 127.0.0.1:" in err
        and "not all of them have come" in err
    )
    ends = finished(start(2, [*SMALL, "--output-dir", tmp_path], own={1: ("--seed", "3")}))
    assert [code for *_, code in ends] == [2, 2], ends
    assert all("process 1 has --seed 3 (process 0: 0)" in err for _, err, _ in ends), ends
    assert not (tmp_path / "train").exists() or not list((tmp_path / "train").iterdir())
    ends = finished(start(2, [*SMALL, "--num-updates", "1", "--output-dir", tmp_path], patch=PARTS))
    assert [code for *_, code in ends] == [2, 2], ends
    assert all("all processes must have the same parameters, and process 1 has" in err for _, err, _ in ends), ends
