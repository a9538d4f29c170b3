"""PPO in PyTorch in the style of CleanRL's single file (Huang et al. 2022), on the vectors of Gymnasium.

It was written for this comparison from the description of that program: separate networks for policy and value, GAE,
shuffled minibatches in every epoch, Adam with a falling learning rate, and a clipped norm of the gradient.
"""

from typing import Any

import gymnasium
import numpy as np
import serving
import torch
from torch import nn


def network(hidden: list[int], outputs: int, scale: float) -> nn.Sequential:
    layers, before = [], 4
    for width in hidden:
        layers += [_layer(before, width, np.sqrt(2)), nn.Tanh()]
        before = width
    return nn.Sequential(*layers, _layer(before, outputs, scale))


def _layer(inputs: int, outputs: int, scale: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, scale)
    nn.init.zeros_(layer.bias)
    return layer


class PPO:
    """Attributes: `actor` and `critic`, the networks."""

    def __init__(self, given: dict[str, Any]):
        self.given, count, steps = given, given["environments"], given["steps"]
        torch.manual_seed(given["seed"])
        self.random = np.random.default_rng(given["seed"])
        make = lambda: gymnasium.make("CartPole-v1")
        reset = gymnasium.vector.AutoresetMode.SAME_STEP
        self.envs = gymnasium.vector.SyncVectorEnv([make] * count, autoreset_mode=reset)
        self.actor, self.critic = network(given["hidden"], 2, 0.01), network(given["hidden"], 1, 1.0)
        self.parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=given["learning_rate"], eps=1e-5)
        zeros = lambda *shape: torch.zeros((steps, count, *shape))
        self.rows = {name: zeros() for name in ("log_probs", "values", "rewards", "dones")}
        self.rows |= {"obs": zeros(4), "actions": zeros().long()}
        self.obs = torch.tensor(self.envs.reset(seed=given["seed"])[0])
        self.updates = 0

    def collect(self) -> None:
        for step in range(self.given["steps"]):
            with torch.no_grad():
                chosen = torch.distributions.Categorical(logits=self.actor(self.obs))
                action = chosen.sample()
                self.rows["values"][step] = self.critic(self.obs)[:, 0]
                self.rows["log_probs"][step] = chosen.log_prob(action)
            self.rows["obs"][step], self.rows["actions"][step] = self.obs, action
            obs, reward, terminated, truncated, _ = self.envs.step(action.numpy())
            self.obs = torch.tensor(obs)
            self.rows["rewards"][step] = torch.tensor(reward)
            self.rows["dones"][step] = torch.tensor(terminated | truncated)

    def advantages(self) -> torch.Tensor:
        given, rows = self.given, self.rows
        found, later = torch.zeros_like(rows["rewards"]), torch.zeros(given["environments"])
        with torch.no_grad():
            following = self.critic(self.obs)[:, 0]
        for step in reversed(range(given["steps"])):
            running = 1.0 - rows["dones"][step]
            delta = rows["rewards"][step] + given["discount"] * following * running - rows["values"][step]
            later = delta + given["discount"] * given["lambda"] * running * later
            found[step], following = later, rows["values"][step]
        return found

    def learn_from(self, batch: dict[str, torch.Tensor], chosen: np.ndarray) -> None:
        given, part = self.given, {name: x[chosen] for name, x in batch.items()}
        policy = torch.distributions.Categorical(logits=self.actor(part["obs"]))
        ratio = (policy.log_prob(part["actions"]) - part["log_probs"]).exp()
        gae = part["gae"]
        gae = (gae - gae.mean()) / (gae.std() + 1e-8)
        clipped = ratio.clamp(1 - given["clip"], 1 + given["clip"])
        loss = -torch.minimum(ratio * gae, clipped * gae).mean() - given["entropy"] * policy.entropy().mean()
        value, old, target = self.critic(part["obs"])[:, 0], part["values"], part["values"] + part["gae"]
        near = old + (value - old).clamp(-given["clip"], given["clip"])
        loss = loss + 0.25 * torch.maximum((value - target) ** 2, (near - target) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 0.5)
        self.optimizer.step()

    def advance(self) -> int:
        given = self.given
        if given.get("updates"):
            left = max(0.0, 1 - self.updates / given["updates"])
            self.optimizer.param_groups[0]["lr"] = left * given["learning_rate"]
        self.collect()
        rows = self.rows | {"gae": self.advantages()}
        batch = {name: x.flatten(0, 1) for name, x in rows.items()}
        size = given["environments"] * given["steps"]
        for _ in range(given["epochs"]):
            for chosen in np.split(self.random.permutation(size), given["minibatches"]):
                self.learn_from(batch, chosen)
        self.updates += 1
        return size

    def act(self, obs: np.ndarray) -> np.ndarray:
        """The greedy actions."""
        with torch.no_grad():
            return self.actor(torch.tensor(obs)).argmax(-1).numpy()


def main(given: dict[str, Any]) -> None:
    # Products as small as these take longer on several threads.
    torch.set_num_threads(1)
    ppo, used = PPO(given), serving.versions("torch", "gymnasium")
    of_call = max(1, given["steps_per_call"] // (given["environments"] * given["steps"]))
    advance = lambda: sum(ppo.advance() for _ in range(of_call))
    serving.work(given, advance, ppo.act, used)


if __name__ == "__main__":
    main(serving.options())
