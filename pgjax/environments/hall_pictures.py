"""Pictures of a data-centre hall: its two aisles, its servers, its cooling unit and its powers."""

from typing import Any

import numpy as np

from pgjax.environments import rendering

_COLD, _WARM = np.array([64.0, 120.0, 200.0]), np.array([206.0, 70.0, 54.0])


def temperature_colour(temperature: float, low: float = 15.0, high: float = 45.0) -> tuple[int, int, int]:
    """Blue at `low` °C and below, red at `high` °C and above."""
    share = float(np.clip((temperature - low) / (high - low), 0.0, 1.0))
    red, green, blue = (int(x) for x in (1.0 - share) * _COLD + share * _WARM)
    return red, green, blue


def hall(
    temperatures: Any,
    *,
    hour: float,
    setpoint: float,
    fan: float,
    utilisation: float,
    outdoor: float,
    chiller_kw: float,
    fan_kw: float,
    limit: float = 27.0,
    width: int = 480,
) -> np.ndarray:
    """Draw the hall from the side: cooling unit, cold aisle, servers and hot aisle, coloured by their temperatures.

    A red frame around the cold aisle shows a violation. The bars below are the utilisation, the fan ratio, and the
    powers of the chiller (of 400 kW) and of the fans (of 60 kW).

    Args:
        temperatures: (T_c, T_h, T_m, T_s), `[4]`, °C.
        hour: of the day.
        setpoint, outdoor, limit: temperatures, °C.
        fan, utilisation: ratios in [0, 1].
        chiller_kw, fan_kw: powers, kW.
        width: the width of the picture in pixels; its height is three fifths of the width.

    Returns:
        uint8 `[3 · width // 5, width, 3]`.
    """
    cold, hot, mass, supply = (float(x) for x in np.asarray(temperatures))
    canvas, draw = rendering._canvas(width, 3 * width // 5, rendering._PAPER)
    unit = canvas.width / 100.0

    def box(left: float, top: float, right: float, bottom: float) -> list[float]:
        return [left * unit, top * unit, right * unit, bottom * unit]

    def text(x: float, y: float, words: str, size: float = 3.2, colour: tuple = rendering._INK) -> None:
        draw.text((x * unit, y * unit), words, fill=colour, font=rendering._font(size * unit), anchor="mm")

    text(50, 4, f"{int(hour):02d}:{int(hour % 1 * 60):02d}   outdoors {outdoor:.0f} °C   setpoint {setpoint:.1f} °C")
    parts = (
        ("supply", supply, 4, 20),
        ("cold aisle", cold, 22, 46),
        ("servers", mass, 48, 68),
        ("hot aisle", hot, 70, 96),
    )
    for name, value, left, right in parts:
        draw.rounded_rectangle(box(left, 8, right, 34), radius=unit, fill=temperature_colour(value))
        middle = (left + right) / 2
        text(middle, 17, name, colour=rendering._PAPER)
        text(middle, 24, f"{value:.1f} °C", 4.0, rendering._PAPER)
    if cold > limit:
        draw.rounded_rectangle(box(21, 7, 47, 35), radius=unit, outline=rendering._RED, width=round(unit))

    bars = (
        ("utilisation", utilisation, f"{utilisation:.0%}", rendering._INK),
        ("fans", fan, f"{fan:.0%}, {fan_kw:.0f} kW", rendering._BLUE),
        ("chiller", chiller_kw / 400.0, f"{chiller_kw:.0f} kW", rendering._ORANGE),
    )
    for row, (name, share, words, colour) in enumerate(bars):
        top = 38 + 7 * row
        text(13, top + 2.5, name)
        draw.rectangle(box(24, top, 78, top + 5), fill=rendering._SHADE)
        draw.rectangle(box(24, top, 24 + 54 * float(np.clip(share, 0.0, 1.0)), top + 5), fill=colour)
        text(88, top + 2.5, words)
    return rendering._finish(canvas)
