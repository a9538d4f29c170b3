"""Ideas about problems with the structure of real ones: what is seen, what is done, what is paid, and two policies."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.lecture.ideas import Idea
from experiments.shared import ranges
from pgjax import diagnostics, environments, evaluation, imitation
from pgjax.environments import cooling_controllers, rules, slates, swimmer_gaits


def beside_the_picture(found: dict[str, Any], title: str, caption: str) -> tuple[Any, Any]:
    """A figure with the environment's own picture on the left; the axes on the right are free."""
    from experiments.harness import plots

    made, (left, right) = plots.figure(title, caption, columns=2, width=8.5)
    left.imshow(found["picture"])
    left.set_axis_off()
    return made, right


def draw_bars(found: dict[str, Any], title: str, caption: str, unit: str) -> Any:
    """The picture, and a bar with its interval for each policy."""
    from experiments.harness import plots

    made, axes = beside_the_picture(found, title, caption)
    bars = {name: (float(x.value), float(x.low), float(x.high)) for name, x in found["policies"].items()}
    plots.bars_with_intervals(axes, bars)
    axes.set_xlabel(unit)
    return made


def drive_between_obstacles() -> dict[str, Any]:
    arena = environments.make("navigation")
    field = imitation.as_policy(imitation.potential_field())
    found = {}
    for name, policy in {"random": environments.random_policy(arena), "potential field": field}.items():
        played = evaluation.evaluate(arena, policy, (), jax.random.key(0), num_episodes=500)
        found[name] = diagnostics.within(played.metrics["success"].final, ranges.SHARE)
    pictures = evaluation.frames(arena, field, (), jax.random.key(1))
    return {"policies": found, "picture": pictures[len(pictures) // 2]}


NAVIGATION = Idea(
    name="navigation",
    title="A problem: robot navigation",
    text=(
        "The state is an arena with eight round obstacles, drawn anew for each episode, and the robot's place and "
        "speeds. The robot sees the direction of its goal and what 16 beams of its lidar meet. Its action asks for a "
        "speed and a turn.",
        "The reward is the distance that it came nearer, minus a little for the time; a collision ends the episode and "
        "costs, an arrival pays. A potential field is the classical controller: the goal attracts, and what the lidar "
        "sees repels. It gets stuck where both are in balance.",
    ),
    equation="Rₜ₊₁ = dₜ − dₜ₊₁ − c_time − c_hit [collision] + bonus [arrival]",
    program=drive_between_obstacles,
    draw=lambda found: draw_bars(
        found,
        f"A potential field arrives in {float(found['policies']['potential field'].value):.0%} of the arenas",
        "500 arenas; 95 % t intervals over episodes. Left: the robot (blue), its beams, and the goal (green).",
        "share of the robots that arrive",
    ),
    finding=lambda found: (
        f"The potential field arrives in {float(found['policies']['potential field'].value):.1%} of 500 arenas, and "
        f"random driving in {float(found['policies']['random'].value):.1%}."
    ),
    command="python -m experiments.train --env navigation",
    source="Khatib 1986; Tai, Paolo & Liu 2017",
)


def swim() -> dict[str, Any]:
    swimmer = environments.make("swimmer", horizon=200)  # 10 s
    eel = swimmer_gaits.travelling_wave(swimmer), swimmer_gaits.Wave(amplitude=1.0, frequency=0.5, lag=2.0)
    found = {}
    for name, (policy, wave) in {"random": (environments.random_policy(swimmer), ()), "travelling wave": eel}.items():
        played = evaluation.evaluate(swimmer, policy, wave, jax.random.key(0), num_episodes=50)
        found[name] = played.metrics["distance"].final
    pictures = evaluation.frames(swimmer, *eel, jax.random.key(1))
    return {"policies": found, "picture": pictures[100]}


SWIMMER = Idea(
    name="locomotion",
    title="A problem: robot locomotion",
    text=(
        "The state is the place, the angles and the speeds of three links in a fluid. The swimmer sees its angles and "
        "speeds, and its action is the torque of its two joints. The fluid resists a link less along its length than "
        "across it; without this difference nobody could swim.",
        "The reward is the speed forwards, minus a little for the torque. Nothing is known of how to swim: a stroke "
        "pays only when its parts come in the right order.",
    ),
    equation="Rₜ₊₁ = (xₜ₊₁ − xₜ) / Δt − c |Aₜ|²",
    program=swim,
    draw=lambda found: draw_bars(
        found,
        f"A wave through the body swims {float(found['policies']['travelling wave'].value):.2f} m in 10 s, and random "
        "torques go nowhere",
        "50 episodes; 95 % t intervals over episodes. Left: the swimmer after 5 s of its wave.",
        "distance after 10 s (m)",
    ),
    finding=lambda found: (
        f"This wave swims {float(found['policies']['travelling wave'].value):.2f} m in 10 s, and random torques "
        f"{float(found['policies']['random'].value):.2f} m."
    ),
    command="python -m experiments.train --env swimmer",
    source="Coulom 2002",
)


def recommend() -> dict[str, Any]:
    videos = environments.make("slates")
    liked = slates.myopic_policy(videos)  # the videos that are clicked most often
    found = {}
    for name, policy in {"random": environments.random_policy(videos), "best-liked videos": liked}.items():
        played = evaluation.evaluate(videos, policy, (), jax.random.key(0), num_episodes=500)
        found[name] = diagnostics.mean_interval(played.returns, bounds=ranges.NOT_NEGATIVE)
    return {"policies": found, "picture": evaluation.frames(videos, liked, (), jax.random.key(1))[20]}


SLATES = Idea(
    name="recommendation",
    title="A problem: recommendation",
    text=(
        "The state is a user: interests in twenty topics, and the minutes that are left. The policy sees the interests "
        "and ten videos, and its action is a slate of three of them. The user clicks on one of the three, or on none.",
        "The reward is the time that was watched. Good videos prolong the session and bad ones shorten it, but nobody "
        "sees how good a video is. So the slate that is clicked most is not the best one.",
    ),
    equation="P(click on i) ∝ uᵢ + 1,   P(no click) ∝ 2;      Rₜ₊₁ = minutes watched",
    program=recommend,
    draw=lambda found: draw_bars(
        found,
        "Showing what is clicked most gains "
        f"{float(found['policies']['best-liked videos'].value) - float(found['policies']['random'].value):.0f} minutes "
        "over random slates",
        "500 sessions; 95 % t intervals over sessions. Left: the user's interests, and the last slate (a disc was "
        "clicked).",
        "minutes watched in a session",
    ),
    finding=lambda found: (
        f"Random slates are watched for {float(found['policies']['random'].value):.1f} minutes, and the best-liked "
        f"videos for {float(found['policies']['best-liked videos'].value):.1f}."
    ),
    command="python -m experiments.train --env slates   and   python -m experiments.train --env ads",
    source="Ie et al. 2019 (RecSim; SlateQ)",
)


def play_breakout() -> dict[str, Any]:
    game = environments.make("Breakout-MinAtar")

    def follow(key: jax.Array, picture: jax.Array) -> jax.Array:
        paddle, ball = (jnp.argmax(picture[:, :, plane].max(axis=0)) for plane in (0, 1))
        return jnp.where(ball < paddle, 1, jnp.where(ball > paddle, 2, 0))  # left, right, stay

    under, found = rules.rule_policy(follow), {}
    for name, policy in {"random": environments.random_policy(game), "under the ball": under}.items():
        played = evaluation.evaluate(game, policy, (), jax.random.key(0), num_episodes=100)
        found[name] = diagnostics.mean_interval(played.returns, bounds=ranges.NOT_NEGATIVE)
    return {"policies": found, "picture": evaluation.frames(game, under, (), jax.random.key(1))[60]}


BREAKOUT = Idea(
    name="breakout",
    title="A problem: Breakout",
    text=(
        "The state is a small picture of 10 × 10 points in four planes: paddle, ball, the ball's last place, and "
        "bricks. The policy sees the picture. Its action moves the paddle left or right, or leaves it.",
        "The reward is 1 for a brick, and a missed ball ends the game. Whether the paddle stood right shows only after "
        "the ball has been up and back. A rule of one line solves the game; the problem is to find it from rewards.",
    ),
    equation="Rₜ₊₁ = number of bricks hit,   end: the ball is missed",
    program=play_breakout,
    draw=lambda found: draw_bars(
        found,
        f"Whoever stays under the ball hits {float(found['policies']['under the ball'].value):.0f} bricks, and random "
        f"moves hit {float(found['policies']['random'].value):.1f}",
        "100 games of at most 1,000 steps; 95 % t intervals over games. Left: the game after 60 steps.",
        "bricks hit in a game",
    ),
    finding=lambda found: (
        f"Random moves hit {float(found['policies']['random'].value):.2f} bricks, and a paddle under the ball "
        f"{float(found['policies']['under the ball'].value):.0f} in 1,000 steps."
    ),
    command="python -m experiments.train --env Breakout-MinAtar",
    source="Young & Tian 2019 (MinAtar)",
)


def cool_a_hall() -> dict[str, Any]:
    hall = environments.make("cooling")
    loop = rules.rule_policy(cooling_controllers.pi_fan(24.0, 25.5))
    match = rules.rule_policy(cooling_controllers.airflow_matching(25.5))
    too_warm, efficiency = {}, {}
    for name, policy in {"PI loop": loop, "airflow matching": match}.items():
        played = evaluation.evaluate(hall, policy, (), jax.random.key(0), num_episodes=50)
        too_warm[name] = played.metrics["violation"].mean
        efficiency[name] = float(played.metrics["pue"].final.value)
    noon = evaluation.frames(hall, loop, (), jax.random.key(1))[144]
    return {"policies": too_warm, "pue": efficiency, "picture": noon}


COOLING = Idea(
    name="cooling",
    title="A problem: cooling a data centre",
    text=(
        "The state is four temperatures of a hall of 1 MW and the load of its servers. The policy sees them, and its "
        "action sets the temperature of the supply air and the speed of the fans, every five minutes for a day.",
        "The reward is minus the power of fans and chiller, minus a penalty that grows above 26.5 °C. Warm air and "
        "slow fans save power, so the best hall is as warm as it may be, while the load changes and the servers answer "
        "late. The PUE is all energy divided by that of the servers; 1 would be perfect.",
    ),
    equation="Rₜ₊₁ = −( (P_fan + P_chiller) / P_ref + λ max(0, T_c − 26.5 °C)² + λ₂ |ΔAₜ|² ) / T",
    program=cool_a_hall,
    draw=lambda found: draw_bars(
        found,
        f"A loop that looks back overheats the hall for {float(found['policies']['PI loop'].value):.1%} of the time; "
        "knowing the airflow is better",
        "50 days; 95 % t intervals over days. Left: the hall at noon under the PI loop.",
        "share of the time above 27 °C",
    ),
    finding=lambda found: (
        f"The PI loop has a PUE of {found['pue']['PI loop']:.3f}, and airflow matching, which knows the hall, "
        f"{found['pue']['airflow matching']:.3f}."
    ),
    command="python -m experiments.train --env cooling",
    source="Moore et al. 2005; Lazic et al. 2018; the hall is this project's own model",
)
