"""The floor of a machine: operations against a count by hand (ground truth), and its table."""

import numpy as np
import pytest
import tensorflow as tf

from meta_impala.agent.builders import make_network
from meta_impala.agent.policy import Policy
from meta_impala.benchmarks import network_operations, roofline
from meta_impala.config import AgentSettings, Config, resolve
from meta_impala.environments import Description

# [channels, height, width] frames; valid padding.
_SHALLOW_FIRST = 2 * 20 * 20 * 16 * (8 * 8 * 4)
_SHALLOW = _SHALLOW_FIRST + 2 * 9 * 9 * 32 * (4 * 4 * 16) + 2 * (9 * 9 * 32) * 256
_HEADS = 2 * 256 * 7
# Of a section: a convolution, a pool that halves the sides, four convolutions.
_DEEP_FIRST = 2 * 84 * 84 * 16 * (3 * 3 * 4)
_DEEP = (
    _DEEP_FIRST
    + 4 * 2 * 42 * 42 * 16 * (3 * 3 * 16)
    + 2 * 42 * 42 * 32 * (3 * 3 * 16)
    + 4 * 2 * 21 * 21 * 32 * (3 * 3 * 32)
    + 2 * 21 * 21 * 32 * (3 * 3 * 32)
    + 4 * 2 * 11 * 11 * 32 * (3 * 3 * 32)
    + 2 * (11 * 11 * 32) * 256
)
_ATARI = Description((4, 84, 84), np.dtype(np.uint8), 6, 4)
_VECTOR = Description((10,), np.dtype(np.float32), 6, 1)


def _forward(description, num_envs=2, **settings):
    config = resolve(Config(batch_size=2, envs_per_actor=num_envs, num_actors=1, **settings))
    network = make_network(config.part(AgentSettings), description)
    policy = Policy(network, config.part(AgentSettings), description, num_envs)
    variables = network.trainable_variables
    return network_operations.forward_pass(policy, len(variables), num_envs)


@pytest.mark.parametrize(
    ("description", "settings", "whole", "first"),
    [
        (_ATARI, {"network": "shallow"}, _SHALLOW + _HEADS, _SHALLOW_FIRST),
        (_ATARI, {"network": "deep"}, _DEEP + _HEADS, _DEEP_FIRST),
        (_VECTOR, {"network": "mlp", "mlp_sizes": "8,5"}, 2 * (80 + 40 + 35), 2 * 80),
        # In one step the core's state is data: no gradient goes through it.
        (
            _VECTOR,
            {"network": "mlp", "mlp_sizes": "8", "core": "lstm", "core_size": 3},
            2 * (80 + 8 * 12 + 3 * 12 + 3 * 7),
            2 * (80 + 3 * 12),
        ),
    ],
)
def test_operations_are_those_of_a_count_by_hand(description, settings, whole, first):
    found = _forward(description, meta_parameters="none", **settings)
    assert found == (whole, first)


def test_operations_of_a_state_do_not_depend_on_the_batch():
    assert _forward(_VECTOR, 2, network="mlp", meta_parameters="none") == _forward(
        _VECTOR, 4, network="mlp", meta_parameters="none"
    )


def test_operations_of_eta_are_counted_as_first():
    with_eta = _forward(_VECTOR, network="mlp", eta_embedding_size=16, meta_batch_size=2)
    without = _forward(_VECTOR, network="mlp", meta_parameters="none")
    assert with_eta.all > without.all and with_eta.first > without.first


def test_an_update_is_forward_and_backward_and_the_meta_gradient_more():
    forward = network_operations.ForwardPass(all=100.0, first=30.0)
    config = Config(unroll_length=20, batch_size=32, meta_batch_size=8)
    plain = network_operations.of_update(forward, config, meta=False)
    assert plain == pytest.approx(100 * 21 / 20 + 200 - 30)
    meta = network_operations.of_update(forward, config, meta=True)
    assert meta == pytest.approx(plain * 1.25 + 170)


@pytest.mark.parametrize("transposed", [False, True])
def test_operations_of_one_product(transposed):
    with tf.Graph().as_default() as graph:
        shape = [7, 3] if transposed else [3, 7]
        tf.linalg.matmul(tf.zeros(shape), tf.zeros([7, 5]), transpose_a=transposed)
        tf.linalg.matmul(tf.zeros([2, *shape]), tf.zeros([2, 7, 5]), transpose_a=transposed)
    found = [count for o in graph.get_operations() if (count := network_operations.operations(o))]
    assert found == [2 * 3 * 7 * 5, 2 * 2 * 3 * 7 * 5]


_MACHINE = {
    "gigaflops_one_core": 100.0,
    "gigaflops_all_cores": 80.0,
    "operations_per_agent_step": {"inference": 1e6, "update_plain": 3e6, "update_meta": 5e6},
}


def _row(name, cost, **details):
    return {"name": name, "cpu_ms_per_agent_step": cost, "details": details}


def test_the_floor_is_the_emulator_and_the_operations():
    rows = [
        _row("environment", 0.30, shapes=[{"cpu_ms_per_agent_step": c} for c in (0.3, 0.2)]),
        _row("environment_inference", 0.35),
        _row("learner_plain", 0.06),
        _row("learner_nested_tapes", 0.10),
        _row("program_plain", 0.50),
        _row("program_meta", 0.52),
    ]
    parts = roofline.roofline(_MACHINE, rows)["parts"]
    floors = {name: part["floor"] for name, part in parts.items()}
    assert floors == pytest.approx(
        {
            "emulator": 0.2,
            "inference": 0.01,
            "emulator and inference": 0.21,
            "learner_plain": 0.03,
            "learner_nested_tapes": 0.05,
            "program_plain": 0.24,
            "program_meta": 0.26,
        }
    )
    assert parts["inference"]["measured"] == pytest.approx(0.15)
    assert parts["program_meta"]["share_of_roofline"] == pytest.approx(0.5)


def test_without_the_emulator_the_learner_has_its_share():
    found = roofline.roofline(_MACHINE, [_row("learner_plain", 0.06), _row("program_plain", 0.5)])
    assert list(found["parts"]) == ["learner_plain"]
    assert any("an update, nothing learned of η" in line for line in roofline.lines(found))


def test_the_rate_of_products_is_positive_per_core_and_in_total():
    rate = roofline.rate_of_products(0.02)
    assert rate.one_core > 0.1 and rate.all_cores > 0.1
