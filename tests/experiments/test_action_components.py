"""Baselines of action components: the variances that a closed form predicts, and the table at the tiny size."""

import json

import numpy as np
import pytest

from experiments import action_components as components
from experiments.harness import runner


@pytest.mark.parametrize("size", [1, 4])
def test_independent_fair_bits_have_the_variances_of_the_closed_form(size):
    found = components.variances(np.zeros(size), 0.0)
    # E G² ‖S‖² = D (D² + D) / 16 with G the number of ones, less ‖∇ρ‖² = D / 16.
    assert found[components.NOTHING] == pytest.approx((size * (size**2 + size) - size) / 16, rel=1e-12)
    assert found[components.STATE] == pytest.approx(size * (size - 1) / 16, abs=1e-12)
    assert found[components.COMPONENT] == pytest.approx(0.0, abs=1e-12)


def test_the_tiny_experiment_agrees_and_orders_the_estimates(tmp_path):
    directory = runner.execute(
        "action_components", components.TINY, components.run, components.plot, output_dir=tmp_path
    )
    rows = json.loads((directory / "summary.json").read_text(encoding="utf-8"))["rows"]
    assert [row["verdict"] for row in rows if row["exact"] is not None] == ["agrees", "agrees"]
    of_three = {row["variant"]: row["ours"] for row in rows if row["quantity"].endswith("policy, D = 3")}
    assert of_three[components.COMPONENT] < of_three[components.STATE] < of_three[components.NOTHING]
