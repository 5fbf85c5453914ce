"""Micro-batches: an update in parts is the update (equivalence, float64), in less memory."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import IMAGES, make_agent, perturb, random_batch

from meta_impala.config import Config, resolve
from meta_impala.errors import UserError


def slowly(settings):
    return pytest.param(settings, marks=pytest.mark.slow, id=str(settings))


SETTINGS = [
    {},
    {"meta_parameters": "none"},
    slowly({"core": "lstm", "core_size": 4, "max_gradient_norm": 0.5}),
    slowly({"meta_gradient_paths": "importance_weights"}),
    slowly({"meta_value_head": "reference", "meta_baseline_cost": 0.3, "meta_kl_cost": 0.1}),
    slowly({"meta_parameters": "gamma,rho_clip", "meta_parameter_scope": "gamma,rho_clip"}),
    {
        "meta_parameters": "gamma,rho_clip",
        "meta_parameter_scope": "gamma,rho_clip",
        "reference_tracking": "gamma,rho_clip",
    },
    slowly(
        {
            "meta_parameters": "gamma,entropy_cost",
            "eta_schedule": "random",
            "eta_random_ranges": "entropy_cost:0.001,0.005",
        }
    ),
    slowly({"meta_data": "held_out", "meta_batch_size": 2, "batch_size": 6}),
    slowly({"inner_optimizer": "adam"}),
]


def updated(parts, settings):
    agent = make_agent(
        tf.float64,
        **{"meta_batch_size": 4, "max_gradient_norm": 80.0, "micro_batches": parts}
        | {"meta_gradient_mode": "reverse_over_forward"}
        | settings,
    )
    perturb(agent, 1)
    batches = [random_batch(agent, seed) for seed in (2, 3, 4)]
    statistics = []
    for updates, (batch, other) in enumerate(zip(batches[:-1], batches[1:], strict=True)):
        found, _ = agent.learner.update(batch, other, updates, 0)
        statistics.append(list(found.numbers().values()))
    return agent, np.array(statistics)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.usefixtures("eager")
def test_an_update_in_parts_is_the_update(settings):
    whole, expected = updated(1, settings)
    parts, found = updated(2, settings)
    before = make_agent(tf.float64, **settings)
    perturb(before, 1)
    moved = [
        np.abs(a.numpy() - b.numpy()).max()
        for a, b in zip(
            whole.network.trainable_variables, before.network.trainable_variables, strict=True
        )
    ]
    assert max(moved) > 1e-4
    for one, other in zip(
        whole.learner.state.variables, parts.learner.state.variables, strict=True
    ):
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)  # written as float32


@pytest.mark.slow
def test_as_many_parts_as_columns():
    whole, _ = updated(1, {})
    parts, _ = updated(4, {})
    for one, other in zip(
        whole.learner.state.variables, parts.learner.state.variables, strict=True
    ):
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_micro_batches_of_images_are_the_whole_batch():
    """The folded convolution, in float32."""
    agents = [
        make_agent(
            description=IMAGES, network="shallow", micro_batches=parts, meta_batch_size=2,
            meta_gradient_mode="reverse_over_forward", inner_optimizer="sgd",
        )
        for parts in (1, 2)
    ]  # fmt: skip
    for agent in agents:
        agent.learner.update(random_batch(agent, 2), random_batch(agent, 3), 0, 0)
    for one, other in zip(*(agent.learner.state.variables for agent in agents), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"micro_batches": 3}, "--batch_size=32"),
        ({"micro_batches": 16}, "--meta_batch_size=8"),
        ({"micro_batches": 2, "meta_gradient_mode": "nested_tapes"}, "reverse_over_forward"),
        ({"micro_batches": 2, "trace_decay": 0.5}, "reverse_over_forward"),
        ({"micro_batches": 2, "meta_advantage_normalization": "ema"}, "must be none"),
        ({"micro_batches": 16, "meta_data": "held_out"}, "less --meta_batch_size"),
    ],
)
def test_indivisible_batches_are_refused(settings, named):
    with pytest.raises(UserError) as caught:
        resolve(Config(**settings))
    assert "--micro_batches" in str(caught.value) and named in str(caught.value)


def test_auto_takes_the_derivation_whose_parts_add_up():
    assert resolve(Config(micro_batches=2)).meta_gradient_mode == "reverse_over_forward"
    assert resolve(Config()).meta_gradient_mode == "nested_tapes"


_PEAK = """
import resource, sys
sys.path.insert(0, "tests")
from support.helpers import IMAGES, make_agent, random_batch
agent = make_agent(description=IMAGES, network="deep", unroll_length=20, batch_size=32,
                   meta_batch_size=8, micro_batches={parts})
for seed in range(2):
    agent.learner.update(random_batch(agent, seed), random_batch(agent, seed + 5), 0, 0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_the_deep_network_fits_into_two_gigabytes():
    def peak(parts):
        result = subprocess.run(
            [sys.executable, "-c", _PEAK.format(parts=parts)],
            cwd=pathlib.Path(__file__).parents[2],
            check=True,
            capture_output=True,
            text=True,
        )
        return float(result.stdout)

    # In one part it needed more than 3 before convolutions had derivatives of their own.
    assert peak(8) < 2.0 < 2.5 < peak(1)
