"""The peers, and the settings with which each of them is measured.

One-epoch settings learn once from every batch, as pgjax does, with one minibatch; 4 × 4 means four epochs of four
minibatches. The settings that solve CartPole-v1
are those that each library publishes for it.
"""

from typing import Any, NamedTuple

from experiments.throughput.workloads import BREAKOUT, CARTPOLE

PUREJAXRL, REJAX_STYLE, REJAX = "PPO, purejaxrl style", "PPO, rejax style", "PPO, rejax"
A2C, PPO, TORCH = "A2C, Stable-Baselines3", "PPO, Stable-Baselines3", "PPO, CleanRL style (PyTorch)"
# The factors by which pgjax, with a value network, is meant to be faster.
ONE_EPOCH_AIM, BEST_AIM, A2C_AIM, BREAKOUT_AIM = 3.2, 3.0, 100.0, 3.0
IN_JAX = (PUREJAXRL, REJAX_STYLE, REJAX)

_PPO = {"discount": 0.99, "lambda": 0.95, "clip": 0.2, "entropy": 0.01, "learning_rate": 2.5e-4}
_ONE_EPOCH = {"epochs": 1, "minibatches": 1, "steps": 128, "steps_per_call": 2**16}
_DEFAULTS = {"environments": 4, "steps": 128, "epochs": 4, "minibatches": 4}


class Peer(NamedTuple):
    """One setting of one peer.

    Attributes:
        name: whose program it is.
        setting: the setting in words.
        script: the file in `peers/`.
        given: the options of the script.
        workload: what is learnt.
        aim: the factor by which pgjax is meant to be faster, or None.
        one_epoch: whether it is one of the one-epoch settings, the fastest of which is the peer's best.
    """

    name: str
    setting: str
    script: str
    given: dict[str, Any]
    workload: str = CARTPOLE
    aim: float | None = None
    one_epoch: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}, {self.setting}"


def _of_jax(name: str, style: str, script: str, count: int, aim: float | None) -> Peer:
    given = {"environment": CARTPOLE, "style": style, "environments": count, **_PPO, **_ONE_EPOCH}
    setting = f"one epoch, {count} environments"
    return Peer(name=name, setting=setting, script=script, given=given, aim=aim, one_epoch=True)


def measured(batch: int, window: int) -> list[Peer]:
    """The settings whose rates are compared with those of pgjax at `batch` episodes, or in windows of Breakout.

    The peers play Breakout in at most 256 environments, because XLA's convolution makes larger batches slower on CPUs.
    """
    cartpole = {"environment": CARTPOLE, **_PPO}
    styles = ((PUREJAXRL, "purejaxrl", "jax_ppo"), (REJAX_STYLE, "rejax", "jax_ppo"), (REJAX, "", "rejax_ppo"))
    found = [
        _of_jax(name, style, script, count, ONE_EPOCH_AIM if count == batch else None)
        for name, style, script in styles
        for count in dict.fromkeys((min(64, batch), batch))
    ]
    defaults = "its defaults (4 environments, 4 × 4)"
    found.append(
        Peer(PUREJAXRL, defaults, "jax_ppo", cartpole | _DEFAULTS | {"style": "purejaxrl", "steps_per_call": 8192})
    )
    found.append(Peer(TORCH, defaults, "torch_ppo", cartpole | _DEFAULTS | {"steps_per_call": 512}))
    own = {"environment": CARTPOLE, "own": {}, "steps_per_call": 2048}
    for count in (8, 64):
        a2c = own | {"style": "A2C", "environments": count}
        found.append(Peer(A2C, f"{count} environments", "stable_baselines", a2c, aim=A2C_AIM if count == 8 else None))
    ppo = own | {"style": "PPO", "environments": 8, "own": {"n_steps": 256}}
    found.append(Peer(PPO, "8 environments, 10 epochs", "stable_baselines", ppo))
    for count, steps in ((64, 128), (256, window)):
        given = {"environment": BREAKOUT, "style": "purejaxrl", "environments": count, **_PPO, **_ONE_EPOCH}
        given |= {"steps": steps, "steps_per_call": 1}
        setting = f"one epoch, {count} environments of {steps} steps"
        found.append(Peer(PUREJAXRL, setting, "jax_ppo", given, workload=BREAKOUT, aim=BREAKOUT_AIM))
    return found


def solving() -> list[Peer]:
    """The settings that solve CartPole-v1."""
    purejaxrl = {"style": "purejaxrl", "environment": CARTPOLE, **_PPO, **_DEFAULTS, "updates": 976}
    rejax = _PPO | {
        "environment": CARTPOLE,
        "style": "",
        "environments": 5,
        "steps": 100,
        "epochs": 5,
        "minibatches": 5,
    }
    rejax |= {"learning_rate": 7.5e-4}
    zoo = {"n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20, "ent_coef": 0.0}
    zoo |= {"falling": {"learning_rate": 0.001, "clip_range": 0.2}, "total": 100_000}
    stable = {"environment": CARTPOLE, "environments": 8, "steps_per_call": 1024}
    return [
        Peer(PUREJAXRL, "its defaults", "jax_ppo", purejaxrl | {"steps_per_call": 4096}),
        Peer(REJAX, "its file cartpole.yaml", "rejax_ppo", rejax | {"steps_per_call": 2000}),
        Peer(PPO, "RL Zoo's settings", "stable_baselines", stable | {"style": "PPO", "own": zoo}),
        Peer(A2C, "RL Zoo's settings", "stable_baselines", stable | {"style": "A2C", "own": {"ent_coef": 0.0}}),
        Peer(TORCH, "its defaults", "torch_ppo", purejaxrl | {"steps_per_call": 1024}),
    ]
