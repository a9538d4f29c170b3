"""Pictures of recommendation: a user's interests and a slate of videos, and a shop's visitor who sees ads."""

from typing import Any

import numpy as np

from pgjax.environments import rendering


def session(
    interests: Any,
    topic_quality: Any,
    *,
    shown: Any,
    clicked: int,
    budget: float,
    width: int = 480,
) -> np.ndarray:
    """Draw one bar for each topic, the user's interest in it, and mark the topics of the last slate.

    A bar goes up for a positive and down for a negative interest. It is green where the topic's mean quality is above
    0, else orange. A ring under a topic is a recommended video, and a full disc is the one that was clicked. The bar at
    the bottom is the time that is left.

    Args:
        interests: u in [−1, 1], `[K]`.
        topic_quality: μ_c, `[K]`.
        shown: the topics of the slate's videos; negative numbers are left out.
        clicked: the place of the click in the slate, −1 if there was none.
        budget: the share of the budget that is left; more than 1 is drawn as 1.
        width: the width of the picture in pixels; its height is half of the width.

    Returns:
        uint8 `[width // 2, width, 3]`.
    """
    interests, quality = np.asarray(interests, float), np.asarray(topic_quality, float)
    canvas, draw = rendering._canvas(width, width // 2, rendering._PAPER)
    unit, count = canvas.width / 100.0, len(interests)
    wide = 92.0 / count
    centre = lambda topic: (4.0 + (topic + 0.5) * wide) * unit

    draw.line([4 * unit, 18 * unit, 96 * unit, 18 * unit], fill=rendering._FAINT, width=max(1, round(0.3 * unit)))
    for topic in range(count):
        ends = sorted((18.0 * unit, (18.0 - 14.0 * interests[topic]) * unit))
        colour = rendering._GREEN if quality[topic] > 0 else rendering._ORANGE
        half = 0.38 * wide * unit
        draw.rectangle([centre(topic) - half, ends[0], centre(topic) + half, ends[1]], fill=colour)
    for place, topic in enumerate(shown):
        if topic >= 0:
            radius, where = 0.3 * wide * unit, (centre(topic), (36.0 + 0.6 * place) * unit)
            rendering._disc(draw, where, radius, rendering._BLUE)
            if place != clicked:
                rendering._disc(draw, where, 0.6 * radius, rendering._PAPER)
    draw.rectangle([4 * unit, 43 * unit, 96 * unit, 47 * unit], fill=rendering._SHADE)
    left = float(np.clip(budget, 0.0, 1.0))
    draw.rectangle([4 * unit, 43 * unit, (4 + 92 * left) * unit, 47 * unit], fill=rendering._INK)
    words = {"fill": rendering._INK, "font": rendering._font(2.6 * unit), "anchor": "lm"}
    draw.text((4 * unit, 2.2 * unit), "interest in each topic (green: good on average)", **words)
    draw.text((4 * unit, 40.8 * unit), "time that is left", **words)
    return rendering._finish(canvas)


def visitor(
    views: Any,
    click_probabilities: Any,
    *,
    bandit: bool,
    ad: int,
    click: bool,
    last_view: int,
    width: int = 480,
) -> np.ndarray:
    """Draw each product's views in the session (upper bars) and the probability of a click on its ad (lower bars).

    Both are relative to the greatest of them. A disc marks the product that was just viewed (grey) or whose ad was just
    shown (red without, green with a click).

    Args:
        views: the number of views of each product, `[P]`.
        click_probabilities: `[P]`.
        bandit: whether the next event is an ad.
        ad: the product whose ad was just shown, −1 if none was.
        click: whether that ad was clicked.
        last_view: the product that was viewed last, −1 if none was.
        width: the width of the picture in pixels; its height is half of the width.

    Returns:
        uint8 `[width // 2, width, 3]`.
    """
    views, rates = np.asarray(views, float), np.asarray(click_probabilities, float)
    canvas, draw = rendering._canvas(width, width // 2, rendering._PAPER)
    unit, count = canvas.width / 100.0, len(views)
    wide = 92.0 / count
    words = {"fill": rendering._INK, "font": rendering._font(2.6 * unit), "anchor": "lm"}
    rows = (
        ("views in the shop", views, 21.0, rendering._BLUE),
        ("probability of a click", rates, 43.0, rendering._ORANGE),
    )
    for name, values, base, colour in rows:
        draw.text((4 * unit, (base - 18.5) * unit), name, **words)
        draw.line(
            [4 * unit, base * unit, 96 * unit, base * unit], fill=rendering._FAINT, width=max(1, round(0.3 * unit))
        )
        for product in range(count):
            middle, half = (4.0 + (product + 0.5) * wide) * unit, 0.35 * wide * unit
            top = base - 15.0 * values[product] / max(values.max(), 1e-9)
            draw.rectangle([middle - half, top * unit, middle + half, base * unit], fill=colour)
    marked = ad if ad >= 0 else last_view
    if marked >= 0:
        colour = (rendering._GREEN if click else rendering._RED) if ad >= 0 else rendering._FAINT
        rendering._disc(draw, ((4.0 + (marked + 0.5) * wide) * unit, 46.0 * unit), 1.6 * unit, colour)
    where = "next: an ad on another page" if bandit else "next: a view in the shop"
    draw.text((60 * unit, 2.5 * unit), where, **words)
    return rendering._finish(canvas)
