"""Pictures of robots in a plane: an arena with its obstacles and lidar beams, and a swimmer in its fluid.

The functions take host values and return pictures uint8 `[H, W, 3]`, as `rendering` does. x points to the right and y
upwards.
"""

from typing import Any

import numpy as np

from pgjax.environments import rendering

_WATER, _RIPPLE = (226, 236, 244), (204, 220, 234)


def arena(
    side: float,
    obstacles: Any,
    goal: Any,
    position: Any,
    heading: float,
    beam_ends: Any,
    *,
    goal_radius: float,
    robot_radius: float,
    hit: bool = False,
    width: int = 360,
) -> np.ndarray:
    """Draw a square arena from above: dark discs to avoid, the goal in green, the robot in blue, its beams in grey.

    Args:
        side: the length of a wall, m; the middle of the arena is (0, 0).
        obstacles: x, y and radius of each disc, `[K, 3]`, m.
        goal, position: x and y of the goal and of the robot, `[2]`, m.
        heading: the direction of the robot, rad, 0 along x.
        beam_ends: where each beam of the lidar ends, `[n, 2]`, m.
        goal_radius, robot_radius: m.
        hit: whether the robot touches something; it is then red.
        width: the width and height of the picture in pixels.

    Returns:
        uint8 `[width, width, 3]`.
    """
    canvas, draw = rendering._canvas(width, width, rendering._INK)
    wall = 0.02 * canvas.width
    metre = (canvas.width - 2 * wall) / side

    def point(place: Any) -> tuple[float, float]:
        return canvas.width / 2 + float(place[0]) * metre, canvas.height / 2 - float(place[1]) * metre

    draw.rectangle([wall, wall, canvas.width - wall, canvas.height - wall], fill=rendering._PAPER)
    for end in np.asarray(beam_ends):
        draw.line([point(position), point(end)], fill=rendering._FAINT, width=max(1, round(0.025 * metre)))
    rendering._disc(draw, point(goal), goal_radius * metre, rendering._GREEN)
    for x, y, radius in np.asarray(obstacles):
        rendering._disc(draw, point((x, y)), float(radius) * metre, rendering._INK)
    colour = rendering._RED if hit else rendering._BLUE
    rendering._disc(draw, point(position), robot_radius * metre, colour)
    nose = np.asarray(position) + robot_radius * np.array([np.cos(heading), np.sin(heading)])
    draw.line([point(position), point(nose)], fill=rendering._PAPER, width=max(1, round(0.07 * metre)))
    return rendering._finish(canvas)


def swimmer(ends: Any, *, width: int = 480, height: int = 240, view: float = 8.0) -> np.ndarray:
    """Draw a swimmer from above; the camera follows its middle, and lines one metre apart show the way it makes.

    Args:
        ends: the ends of its links from tail to head, `[n + 1, 2]`, m.
        width, height: the size of the picture in pixels.
        view: the width of the picture, m.

    Returns:
        uint8 `[height, width, 3]`.
    """
    ends = np.asarray(ends, float)
    canvas, draw = rendering._canvas(width, height, _WATER)
    metre = canvas.width / view
    middle = ends.mean(axis=0)

    def point(place: Any) -> tuple[float, float]:
        return canvas.width / 2 + (place[0] - middle[0]) * metre, canvas.height / 2 - (place[1] - middle[1]) * metre

    thin, half = max(1, round(0.02 * metre)), np.array([view, view * height / width]) / 2
    for axis, across in ((0, 1), (1, 0)):
        for line in range(int(np.ceil((middle - half)[axis])), int(np.floor((middle + half)[axis])) + 1):
            low, high = np.zeros(2), np.zeros(2)
            low[axis] = high[axis] = line
            low[across], high[across] = (middle - half)[across], (middle + half)[across]
            # Every fifth metre is thicker, so that the eye can count them.
            draw.line([point(low), point(high)], fill=_RIPPLE, width=thin * (3 if line % 5 == 0 else 1))
    body = [point(end) for end in ends]
    draw.line(body, fill=rendering._BLUE, width=round(0.16 * metre), joint="curve")
    for joint in body:
        rendering._disc(draw, joint, 0.08 * metre, rendering._BLUE)
    for joint in body[1:-1]:
        rendering._disc(draw, joint, 0.045 * metre, rendering._PAPER)
    rendering._disc(draw, body[-1], 0.12 * metre, rendering._ORANGE)
    return rendering._finish(canvas)
