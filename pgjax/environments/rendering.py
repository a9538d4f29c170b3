"""Pictures of single states, drawn on the host with Pillow, and animations of them.

The functions take host values (anything that `numpy.asarray` accepts) and return pictures uint8 `[H, W, 3]`, whose
first row is at the top. Pillow is imported when the first picture is drawn.
"""

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from pgjax import writing

_PAPER, _INK, _FAINT = (250, 249, 246), (40, 44, 52), (214, 212, 205)
_BLUE, _PALE_BLUE, _GREEN = (46, 94, 170), (160, 184, 222), (58, 148, 96)
_ORANGE, _RED, _SHADE = (222, 132, 44), (196, 60, 52), (238, 236, 228)
_OVERSAMPLING = 4

# One colour for each channel, on a dark ground; MinAtar has at most ten channels.
_CHANNELS = (
    (240, 240, 235),
    (255, 176, 58),
    (120, 94, 50),
    (86, 156, 214),
    (78, 190, 140),
    (232, 92, 84),
    (190, 130, 210),
    (76, 108, 130),
    (170, 180, 90),
    (235, 145, 170),
)
_NIGHT, _NIGHT_GRID = (24, 27, 34), (36, 40, 49)


def cartpole(obs: Any, *, width: int = 480, x_limit: float = 2.4, angle_limit: float = 0.20944) -> np.ndarray:
    """Draw the cart, its pole, the ends of the track, and the angles that count as balanced.

    Args:
        obs: (x, ẋ, θ, θ̇), `[4]`, in m, m/s, rad, rad/s; the picture shows x and θ, clockwise from upright.
        width: the width of the picture in pixels; its height is two fifths of the width.
        x_limit: the distance from the middle to the ends of the track, m.
        angle_limit: the greatest angle that counts as balanced, rad.

    Returns:
        uint8 `[2 · width // 5, width, 3]`.

    Raises:
        ValueError: if `obs` does not have shape `[4]`.
    """
    x, _, theta, _ = _host_array("obs", obs, (4,)).astype(float)
    canvas, draw = _canvas(width, 2 * width // 5, _PAPER)
    metre = canvas.width / (2 * x_limit + 1.2)
    rail = 0.80 * canvas.height

    def point(right: float, up: float) -> tuple[float, float]:
        return canvas.width / 2 + right * metre, rail - up * metre

    line = max(1, round(0.02 * metre))
    draw.line([point(-x_limit - 0.3, 0.0), point(x_limit + 0.3, 0.0)], fill=_FAINT, width=2 * line)
    for end in (-x_limit, x_limit):
        draw.line([point(end, -0.12), point(end, 0.12)], fill=_INK, width=2 * line)

    axle, reach = 0.34, 1.0
    span = np.degrees(angle_limit)
    fan = [point(x - 1.12 * reach, axle + 1.12 * reach), point(x + 1.12 * reach, axle - 1.12 * reach)]
    draw.pieslice(fan, -90 - span, -90 + span, fill=_SHADE)

    draw.rounded_rectangle([point(x - 0.36, 0.38), point(x + 0.36, 0.1)], radius=0.06 * metre, fill=_INK)
    for wheel in (x - 0.2, x + 0.2):
        _disc(draw, point(wheel, 0.09), 0.09 * metre, _INK)
        _disc(draw, point(wheel, 0.09), 0.035 * metre, _PAPER)

    tip = point(x + reach * np.sin(theta), axle + reach * np.cos(theta))
    colour = _ORANGE if abs(theta) <= angle_limit and abs(x) <= x_limit else _RED
    draw.line([point(x, axle), tip], fill=colour, width=round(0.09 * metre))
    _disc(draw, tip, 0.045 * metre, colour)
    _disc(draw, point(x, axle), 0.065 * metre, colour)
    _disc(draw, point(x, axle), 0.03 * metre, _PAPER)
    return _finish(canvas)


def cartpole_of(state: Any, obs: Any, params: Any) -> np.ndarray:
    """`cartpole` as an environment's `render`, with the limits of its params."""
    del state
    return cartpole(obs, x_limit=float(params.x_threshold), angle_limit=float(params.theta_threshold_radians))


def minatar(obs: Any, *, cell: int = 32) -> np.ndarray:
    """Draw a MinAtar screen, one colour for each channel.

    If several channels are on in a cell, the picture shows the lowest one; channel 0 is the player in every game.

    Args:
        obs: 0 or 1, `[rows, columns, channels]`, at most 10 channels.
        cell: the side of a cell in pixels.

    Returns:
        uint8 `[rows · cell, columns · cell, 3]`.

    Raises:
        ValueError: if `obs` has another rank or more channels.
    """
    obs = np.asarray(obs)
    if obs.ndim != 3 or obs.shape[-1] > len(_CHANNELS):
        raise ValueError(f"obs must be [rows, columns, at most {len(_CHANNELS)}], got {list(obs.shape)}")
    rows, columns, channels = obs.shape
    canvas, draw = _canvas(columns * cell, rows * cell, _NIGHT)
    for row, column in np.ndindex(rows, columns):
        on = [channel for channel in range(channels) if obs[row, column, channel] > 0]
        side, gap = cell * _OVERSAMPLING, cell * _OVERSAMPLING / 16
        box = [column * side + gap, row * side + gap, (column + 1) * side - gap, (row + 1) * side - gap]
        draw.rounded_rectangle(box, radius=2 * gap, fill=_CHANNELS[on[0]] if on else _NIGHT_GRID)
    return _finish(canvas)


def grid(
    walls: Any,
    agent: Sequence[int] | None = None,
    goal: Sequence[int] | None = None,
    *,
    path: Sequence[Sequence[int]] = (),
    cell: int = 24,
) -> np.ndarray:
    """Draw a maze seen from above, with dark walls, the goal as a green square and the agent as a blue disc.

    Args:
        walls: bool `[h, w]`, true for cells that are walls.
        agent, goal: (row, column) counted from the top left, or None to leave them out.
        path: (row, column) of cells that a line under the agent joins, such as the way that the agent came.
        cell: the side of a cell in pixels.

    Returns:
        uint8 `[h · cell, w · cell, 3]`.

    Raises:
        ValueError: if `walls` is not a matrix, or `agent`, `goal` or `path` lies outside of it.
    """
    walls = np.asarray(walls, bool)
    if walls.ndim != 2:
        raise ValueError(f"walls must have shape [h, w], got {list(walls.shape)}")
    for name, places in {"agent": [agent], "goal": [goal], "path": path}.items():
        for place in places:
            if place is not None and not (0 <= place[0] < walls.shape[0] and 0 <= place[1] < walls.shape[1]):
                raise ValueError(f"{name} must lie inside the walls {list(walls.shape)}, got {place}")

    side = cell * _OVERSAMPLING
    canvas, draw = _canvas(walls.shape[1] * cell, walls.shape[0] * cell, _PAPER)

    def centre(place: Sequence[int]) -> tuple[float, float]:
        return (int(place[1]) + 0.5) * side, (int(place[0]) + 0.5) * side

    for row, column in np.argwhere(walls):
        draw.rectangle([column * side, row * side, (column + 1) * side - 1, (row + 1) * side - 1], fill=_INK)
    if goal is not None:
        (x, y), half = centre(goal), 0.36 * side
        draw.rounded_rectangle([x - half, y - half, x + half, y + half], radius=0.12 * side, fill=_GREEN)
    if len(path) > 1:
        way = [centre(place) for place in path]
        draw.line(way, fill=_PALE_BLUE, width=round(0.2 * side), joint="curve")
    if agent is not None:
        _disc(draw, centre(agent), 0.34 * side, _PAPER)
        _disc(draw, centre(agent), 0.29 * side, _BLUE)
    return _finish(canvas)


def save_gif(frames: Sequence[np.ndarray], path: str | os.PathLike, fps: float = 30.0) -> None:
    """Write frames as an animation that repeats for ever.

    Args:
        frames: uint8 `[H, W, 3]` each, all of one shape.
        path: the file to write.
        fps: frames per second, at most 50. A GIF counts time in hundredths of a second, so 30 becomes 33.3.

    Raises:
        ValueError: if there are no frames, if one is not uint8 `[H, W, 3]` of the first one's shape, or if
            `fps` is outside (0, 50].
    """
    frames = [np.asarray(frame) for frame in frames]
    if not frames:
        raise ValueError("frames must hold at least one picture, got none")
    if not 0 < fps <= 50:
        raise ValueError(f"fps must lie in (0, 50], got {fps}")
    for index, frame in enumerate(frames):
        picture = frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[-1] == 3
        if not picture or frame.shape != frames[0].shape:
            seen = f"{frame.dtype} {list(frame.shape)}"
            raise ValueError(f"frames must all be uint8 [H, W, 3] of one shape, got {seen} at index {index}")
    from PIL import Image

    first, *rest = (Image.fromarray(frame) for frame in frames)
    duration = 10 * round(100 / fps)
    content = io.BytesIO()
    first.save(content, format="GIF", save_all=True, append_images=rest, duration=duration, loop=0)
    writing.replace_file(path, content.getbuffer())


def _host_array(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    value = np.asarray(value)
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(value.shape)}")
    return value


def _canvas(width: int, height: int, colour: tuple[int, int, int]) -> tuple[Any, Any]:
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (width * _OVERSAMPLING, height * _OVERSAMPLING), colour)
    return canvas, ImageDraw.Draw(canvas)


def _finish(canvas: Any) -> np.ndarray:
    return np.asarray(canvas.reduce(_OVERSAMPLING))


def _disc(draw: Any, centre: tuple[float, float], radius: float, colour: tuple[int, int, int]) -> None:
    (x, y), r = centre, radius
    draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)


def _font(size: float) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(max(1, round(size)))
