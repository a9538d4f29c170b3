"""The cost of sharing an update: exchanges are counted from the program, the model has its limits, layouts agree."""

import math
import types

import pytest

from experiments import scaling
from experiments.harness import runner
from experiments.scaling import measured, model
from experiments.scaling.exchanges import Groups, exchanges, grouped
from experiments.shared.training import build

# Lines as XLA prints them, shortened.
TEXT = """
  %a = s32[] all-reduce(%x), channel_id=1, metadata={op_name="jit(update)/shard_map/while/body/pmax" stack_frame_id=3}
  %b = f32[500,1024]{0,1} all-gather(%y), dimensions={1}, metadata={op_name="jit(update)/sharding_constraint"}
  %c = pred[500,1024]{0,1} all-gather(%y), dimensions={1}, metadata={op_name="jit(update)/sharding_constraint"}
  %d = f32[8,64,64]{2,1,0} all-gather(%z), dimensions={0}, metadata={op_name="jit(update)/sharding_constraint"}
  %e = (f32[], s32[]) all-reduce(%u, %v), metadata={op_name="jit(update)/reduce_sum"}
  %f = f32[8,64] all-gather-start(%z)
  %g = f32[8,64] add(%all-gather.1, %z)
"""


def test_exchanges_are_counted_by_their_purpose():
    found = exchanges(TEXT)
    assert [one.kind for one in found] == ["all-reduce", *["all-gather"] * 3, "all-reduce", "all-gather"]
    assert [one.size for one in found] == [4, 4 * 500 * 1024, 500 * 1024, 4 * 8 * 64 * 64, 8, 4 * 8 * 64]
    groups = grouped(found, 1024)
    assert groups.statistics == (2, 5 * 500 * 1024) and groups.gradients == (2, 4 * (8 * 64 * 64 + 8 * 64))
    assert groups.metrics == (2, 12)
    # Another number of episodes has none of these statistics.
    assert grouped(found, 512).statistics == (0, 0)


NETWORK = model.Network(latency=1e-3, bandwidth=1e6)
GROUPS = Groups(statistics=(2, 1000), gradients=(3, 2000), metrics=(5, 0))


def test_the_model_at_one_machine_and_at_many():
    seconds = lambda machines, fixed_order=True, **more: model.update_seconds(
        machines, 0.5, GROUPS, NETWORK, fixed_order=fixed_order, **more
    )
    for growing in (False, True):
        assert seconds(1, growing=growing) == (0.5, 0.0, 0.0)
        assert model.efficiency(1, seconds(1, growing=growing), 0.5, growing=growing) == 1.0
    shared = seconds(8, growing=False)
    assert shared == pytest.approx((0.5 / 8, 10 * 1e-3 * 3, 3000 * 7 / 8 / 1e6)) and shared.bound == "compute"
    assert model.efficiency(8, shared, 0.5, growing=False) == pytest.approx(0.5 / 8 / shared.total)
    own = seconds(1024, growing=True)
    # 2000 bytes are eight blocks; each of 1024 machines sends one.
    blocks = 1024 * 2000 / 8
    assert own.transfer == pytest.approx((1024 * 1000 + blocks) * 1023 / 1024 / 1e6) and own.bound == "transfer"
    # A ring sends twice the bytes of the sum, on any number of machines.
    ring = seconds(1024, growing=True, fixed_order=False)
    assert ring == pytest.approx((0.5, 10 * 1e-3 * 10, (1024 * 1000 + 2 * 2000) * 1023 / 1024 / 1e6))
    # Without a network there is nothing to wait for.
    free = model.update_seconds(64, 0.5, GROUPS, model.Network(0.0, math.inf), growing=False, fixed_order=True)
    assert free.total == 0.5 / 64


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device_counts": (1, 2, 2)}, "--device-counts 1 2 2: must be 1 and some of 2, 4 and 8, each once"),
        ({"device_counts": (1,)}, "--device-counts 1: must be 1 and some of 2, 4 and 8"),
        ({"process_counts": (1,)}, "--process-counts 1: must be some of 2, 4 and 8"),
        ({"episodes": 24}, "--episodes 24: must be a multiple of 16"),
        ({"updates": 5}, "--updates 5: must be a multiple of --chunk 4, at least twice"),
        ({"updates": 10}, "--updates 10: must be a multiple of --chunk 4"),
        ({"bandwidth": float("nan")}, "--bandwidth nan: must be in"),
    ],
)
def test_options_are_refused(options, words):
    with pytest.raises(runner.UsageError, match=words):
        scaling.Config(**options).validate()


def test_an_error_in_a_process_is_told():
    with pytest.raises(RuntimeError, match=r"a process of one device has ended with code 70: (?s:.*)KeyError"):
        measured.measure(measured.Layout(1, 1), {})


@pytest.mark.slow
def test_all_layouts_end_with_the_same_parameters(tmp_path):
    seen = []
    directory = runner.execute(
        "scaling", scaling.TINY, scaling.run, lambda found, to: (seen.append(found), scaling.plot(found, to)),
        output_dir=tmp_path, tiny=True,
    )  # fmt: skip
    (results,) = seen
    fixed = {found.digest for layout, found in results.found.items() if not layout.any_order}
    assert len(results.found) == 4 and len(fixed) == 1
    assert all(len(found.seconds) == 1 and found.seconds[0] > 0 for found in results.found.values())
    statistics, gradients, _ = results.groups[scaling.FIXED]
    assert statistics[1] == (4 + 4 + 1) * 500 * 16 and statistics[0] == 3
    # Eight blocks of 4 610 parameters and of the mean return.
    assert gradients[1] >= 8 * 4 * 4610
    # In any order the devices exchange one sum of 4 610 parameters and of few other numbers.
    statistics, gradients, _ = results.groups[scaling.ANY]
    assert statistics == (0, 0) and gradients[0] == 1 and 4 * 4610 <= gradients[1] <= 4 * 4620
    assert (directory / "scaling.png").is_file()
    # Another seed ends elsewhere.
    other = measured.measure(measured.Layout(1, 1), {"episodes": 16, "updates": 4, "chunk": 2, "seed": 1})
    assert other.digest not in {found.digest for found in results.found.values()}


def test_devices_that_cannot_share_an_update_are_named(monkeypatch):
    """The wrong twins, a batch that all can share and as many runs as devices, say nothing."""
    devices = [types.SimpleNamespace(process_index=0, platform="cpu", id=i) for i in range(3)]
    monkeypatch.setattr(build.sharding, "choose_devices", lambda given: devices)
    monkeypatch.setattr(build.sharding, "choose_layout", lambda given, runs, episodes, group, deterministic: layouts(
        runs if runs > 1 else max(n for n in (1, 2, 3) if episodes % n == 0 and not (deterministic and n == 3))
    ))  # fmt: skip
    layouts = lambda size: types.SimpleNamespace(mesh=types.SimpleNamespace(size=size))
    trainer = types.SimpleNamespace(num_episodes=7, group_size=1)
    found = build.unused_devices(trainer, 1, deterministic=True)
    assert found.startswith("1 of 3 devices is used: 1 run cannot occupy all of them") and "7 episodes" in found
    trainer.num_episodes = 9
    assert build.unused_devices(trainer, 1, deterministic=False) is None
    assert build.unused_devices(trainer, 3, deterministic=True) is None
