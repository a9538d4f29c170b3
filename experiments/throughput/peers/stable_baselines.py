"""A2C and PPO of the package Stable-Baselines3 itself (Raffin et al. 2021), with its own vectors of environments."""

from typing import Any

import serving
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env


def main(given: dict[str, Any]) -> None:
    # Products as small as these take longer on several threads.
    torch.set_num_threads(1)
    kind = {"A2C": A2C, "PPO": PPO}[given["style"]]
    environments = make_vec_env(given["environment"], n_envs=given["environments"], seed=given["seed"])
    own, progress = dict(given["own"]), {"steps": 0}
    # The numbers in "falling" fall linearly to zero over the whole training, which is learnt in parts here.
    falling, total = own.pop("falling", {}), own.pop("total", 1)
    own |= {
        name: lambda _, start=start: start * max(0.0, 1 - progress["steps"] / total) for name, start in falling.items()
    }
    model = kind(
        "MlpPolicy",
        environments,
        policy_kwargs={"net_arch": list(given["hidden"])},
        seed=given["seed"],
        device="cpu",
        **own,
    )
    used = serving.versions("stable-baselines3", "torch", "gymnasium")

    def advance() -> int:
        before = progress["steps"]
        model.learn(given["steps_per_call"], reset_num_timesteps=False)
        progress["steps"] = model.num_timesteps
        return model.num_timesteps - before

    serving.work(given, advance, lambda obs: model.predict(obs, deterministic=True)[0], used)


if __name__ == "__main__":
    main(serving.options())
