"""The floor of a machine: operations against a count by hand (ground truth), and its table."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from meta_impala.agent.builders import make_network
from meta_impala.agent.policy import Policy
from meta_impala.benchmarks import network_kernels, network_operations, roofline
from meta_impala.benchmarks.throughput import describe
from meta_impala.config import AgentSettings, Config, resolve
from meta_impala.environments import Description
from meta_impala.learner.make_learner import make_learner

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


def _contractions(description, num_envs=2, **settings):
    config = resolve(Config(batch_size=2, envs_per_actor=num_envs, num_actors=1, **settings))
    network = make_network(config.part(AgentSettings), description)
    policy = Policy(network, config.part(AgentSettings), description, num_envs)
    return network_operations.contractions(policy, len(network.trainable_variables))


def _count(description, num_envs=2, **settings):
    found = _contractions(description, num_envs, **settings)
    return network_operations.count(found, num_envs)


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
    found = _count(description, meta_parameters="none", **settings)
    # As many for the gradients of the weights as forward, and for those of the inputs, which
    # the first layers have not; so with the tangents.
    assert found == (whole, 2 * whole - first, 2 * whole - first)


def test_operations_of_a_state_do_not_depend_on_the_batch():
    assert _count(_VECTOR, 2, network="mlp", meta_parameters="none") == _count(
        _VECTOR, 4, network="mlp", meta_parameters="none"
    )


def test_operations_of_eta_are_counted_as_first():
    settings = {"network": "mlp", "eta_embedding_size": 16, "meta_batch_size": 2}
    with_eta = _contractions(_VECTOR, **settings)
    without = _contractions(_VECTOR, network="mlp", meta_parameters="none")
    assert len(with_eta) > len(without)
    assert sum(c.is_first for c in with_eta) > sum(c.is_first for c in without)


def test_an_update_is_forward_and_backward_and_the_meta_gradient_more():
    passes = network_operations.Passes(forward=100.0, backward=170.0, pushforward=160.0)
    config = Config(unroll_length=20, batch_size=32, meta_batch_size=8)
    plain = network_operations.of_update(passes, config, meta=False)
    assert plain == pytest.approx(100 * 21 / 20 + 170)
    meta = network_operations.of_update(passes, config, meta=True)
    assert meta == pytest.approx(plain * 1.25 + 160)


def _executed(graph):
    """Operations of all that the graph's outputs and assignments need; the rest is pruned."""
    needed, waiting = {}, [*(tensor.op for tensor in graph.outputs), *graph.control_outputs]
    while waiting:
        operation = waiting.pop()
        if operation.name not in needed:
            needed[operation.name] = network_operations.operations(operation)
            waiting += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
    return sum(needed.values())


_SMALL = Config(
    environment="Catch",
    network="mlp",
    mlp_sizes="16,24",
    batch_size=8,
    meta_batch_size=4,
    unroll_length=5,
    envs_per_actor=2,
    num_actors=1,
)


@pytest.mark.parametrize(
    "settings",
    [
        {"meta_parameters": "none"},
        {},
        {"meta_data": "held_out", "meta_gradient_mode": "reverse_over_forward"},
        {"meta_batch_size": 8, "sample_reuse": 2},
        {"meta_parameters": "learning_rate_factor"},
        {"meta_parameter_scope": "state"},
        *(
            pytest.param(settings, marks=pytest.mark.slow)  # a trace of the update each
            for settings in (
                {"eta_schedule": "random"},
                {"eta_schedule": "linear"},
                {"meta_gradient_mode": "reverse_over_forward"},
                {"meta_data": "held_out", "meta_gradient_mode": "nested_tapes"},
                *(
                    {"meta_data": data, "meta_gradient_mode": mode}
                    for data in ("same", "swap")
                    for mode in ("nested_tapes", "reverse_over_forward")
                ),
                {
                    "meta_parameters": "rmsprop_decay",
                    "meta_gradient_mode": "reverse_over_forward",
                },
                {"meta_parameters": "gamma,learning_rate_factor"},
                {"meta_parameters": "entropy_cost"},
                {"eta_embedding_place": "heads"},
                {"last_action_and_reward": True},
                {"meta_value_head": "reference"},
            )
        ),
    ],
    ids=str,
)
def test_an_update_executes_what_its_floor_counts_and_not_much_more(settings):
    """Operations of the learner's graph against the formula, for every way that data is divided."""
    config = resolve(dataclasses.replace(_SMALL, **settings))
    _, (learning, _) = roofline._passes(config, {}, 0.001)
    floor = network_operations.of_update(learning, config, meta=bool(config.learned))
    config, description = describe(config)
    graph = make_learner(config, description).function.get_concrete_function().graph
    executed = _executed(graph) / (config.batch_size * config.unroll_length)
    assert floor <= executed <= 1.8 * floor


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"meta_parameters": "none"}, "nothing is learned"),
        ({"eta_schedule": "random"}, "nothing is learned"),
        ({"inner_steps": 3}, "--inner_steps=3"),
        ({"meta_objective": "bootstrapped", "bootstrap_steps": 2}, "--meta_objective=bootstrapped"),
        ({"trace_decay": 0.5}, "--trace_decay=0.5"),
    ],
    ids=str,
)
def test_what_is_not_counted_has_no_floor_and_a_reason(settings, named):
    config = resolve(dataclasses.replace(_SMALL, **settings))
    reason = network_operations.why_not_counted(config)
    assert named in reason
    passes = network_operations.Passes(100.0, 170.0, 160.0)
    assert list(roofline._parts("meta", passes, passes, config)) == ["inference"]
    counts = {"inference": 1e6, "inference_plain": 1e6, "update_plain": 3e6}
    kernels = dict.fromkeys(counts, 0.02)
    machine = _MACHINE | {
        "operations_per_agent_step": counts,
        "kernel_ms_per_agent_step": kernels,
        "no_update_meta": reason,
    }
    rows = [
        _row("environment", 0.3, shapes=[{"cpu_ms_per_agent_step": 0.2}]),
        *(_row(name, 0.5) for name in ("learner_plain", "learner_nested_tapes", "program_meta")),
    ]
    found = roofline.roofline(machine, rows)
    assert list(found["parts"]) == ["emulator", "learner_plain"]
    assert found["without_floor"] == ["learner_nested_tapes", "program_meta"]
    (line,) = [line for line in roofline.lines(found) if reason in line]
    assert "learner_nested_tapes, program_meta" in line


def test_each_update_on_a_batch_is_in_the_floor_of_the_program():
    """A learner's row is per agent step of an update, a program's per frame that is played."""
    rows = [
        _row("environment", 0.3, shapes=[{"cpu_ms_per_agent_step": 0.2}]),
        *(_row(f"{who}_plain", 0.5) for who in ("learner", "program")),
        *(_row(name, 0.5) for name in ("learner_nested_tapes", "program_meta")),
    ]
    parts = roofline.roofline(_MACHINE | {"sample_reuse": 3}, rows)["parts"]
    floors = {name: part["floor"] for name, part in parts.items()}
    assert floors["learner_plain"] == pytest.approx(0.03)
    assert floors["learner_nested_tapes"] == pytest.approx(0.05)
    assert floors["program_plain"] == pytest.approx(0.2 + 0.01 + 3 * 0.03)
    assert floors["program_meta"] == pytest.approx(0.2 + 0.01 + 3 * 0.05)
    assert parts["program_plain"]["kernels"] == pytest.approx(0.2 + 0.02 + 3 * 0.04)


def test_the_plain_rows_are_counted_with_the_network_that_they_have():
    """Without e_η, whose products an actor makes for every state."""
    known = {}
    learned, plain = (
        roofline._passes(resolve(dataclasses.replace(_SMALL, **more)), known, 0.001)
        for more in ({}, {"meta_parameters": "none"})
    )
    of_eta = 2 * (2 * 16 + 16 * 24)  # to e_η, and from it to the last hidden layer
    assert learned[0][0].forward == plain[0][0].forward + of_eta
    assert learned[1] == plain[1] and len(known) == 3  # the learner's is measured once


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
    "sample_reuse": 1,
    "operations_per_agent_step": {
        "inference": 1e6,
        "inference_plain": 1e6,
        "update_plain": 3e6,
        "update_meta": 5e6,
    },
    "kernel_ms_per_agent_step": {
        "inference": 0.02,
        "inference_plain": 0.02,
        "update_plain": 0.04,
        "update_meta": 0.08,
    },
    "no_update_meta": "",
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
    kernels = {name: part["kernels"] for name, part in parts.items()}
    assert kernels == pytest.approx(
        {
            "emulator": 0.2,
            "inference": 0.02,
            "emulator and inference": 0.22,
            "learner_plain": 0.04,
            "learner_nested_tapes": 0.08,
            "program_plain": 0.26,
            "program_meta": 0.30,
        }
    )
    assert parts["program_plain"]["attainable_share"] == pytest.approx(0.24 / 0.26)


def test_without_the_emulator_the_learner_has_its_share():
    found = roofline.roofline(_MACHINE, [_row("learner_plain", 0.06), _row("program_plain", 0.5)])
    assert list(found["parts"]) == ["learner_plain"]
    assert any("an update, nothing learned of η" in line for line in roofline.lines(found))


# Wide enough that a pass is most of a call.
_WIDE = {"network": "mlp", "mlp_sizes": "1024,1024", "meta_parameters": "none"}


def test_every_pass_through_the_kernels_is_executed(monkeypatch):
    """Operations that are executed, counted in the graphs, against the count by formula."""
    executed = []
    once = network_kernels._milliseconds

    def counting(function, seconds, *inputs):
        executed.append(_executed(function.get_concrete_function(*inputs).graph))
        return once(function, seconds, *inputs)

    monkeypatch.setattr(network_kernels, "_milliseconds", counting)
    found = _contractions(_VECTOR, 8, **_WIDE)
    passes = network_operations.count(found, 8)
    network_kernels.measure(found, 8, 0.001)
    forward, tangents, backward = executed
    assert (forward / 8, backward / 8) == (passes.forward, passes.backward)
    assert (forward + tangents) / 8 == passes.pushforward


@pytest.mark.parametrize(
    ("description", "settings"),
    [
        (_ATARI, {"network": "shallow"}),  # convolutions
        (_ATARI, {"network": "shallow", "precision": "bfloat16"}),
        (_VECTOR, {"network": "mlp", "core": "lstm", "core_size": 3}),
        (_VECTOR, {"network": "mlp", "mlp_sizes": "8"}),
    ],
)
def test_kernels_of_each_network_take_time(description, settings):
    found = _contractions(description, meta_parameters="none", **settings)
    passes = network_kernels.measure(found, 2, 0.001)
    assert all(milliseconds > 0 for milliseconds in passes)
    assert passes.pushforward >= passes.forward


def test_kernels_repeat_the_operation_of_the_graph():
    """Strides, padding and transposition are those of the graph: outputs have its shapes."""
    for settings in ({"network": "shallow"}, {"network": "deep"}, {"network": "nature"}):
        for operation, _ in _contractions(_ATARI, meta_parameters="none", **settings):
            left, right = (tf.ones(tensor.shape, tensor.dtype) for tensor in operation.inputs)
            repeated = network_kernels._executed(operation, left, right)
            assert repeated.shape == operation.outputs[0].shape


def test_the_rate_of_products_is_positive_per_core_and_in_total():
    rate = roofline.rate_of_products(0.02)
    assert rate.one_core > 0.1 and rate.all_cores > 0.1
