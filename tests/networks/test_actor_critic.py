"""The actor-critic. Ground truth (widths and parameter counts by hand), equivalence (split and
joined unrolls, resets and fresh states, given tensors and variables), determinism (the seed)."""

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import FEATURES, IMAGES

from meta_impala.algorithm.meta_parameters import embedding_input
from meta_impala.environments import Description
from meta_impala.networks import ActorCritic
from meta_impala.networks.actor_critic import HEADS, LAST_HIDDEN, NetworkDefinition, NetworkInputs

T, B, A = 5, 3, 3
ETA = tf.constant([0.4, -0.2])


def make(dtype=tf.float32, description: Description = FEATURES, seed=0, **settings):
    defaults = {"torso": "mlp", "num_actions": A, "mlp_sizes": (8,), "core_size": 4}
    tf.random.set_seed(seed)
    network = ActorCritic(NetworkDefinition(**(defaults | settings)), dtype)
    network.build(description.observation_shape, description.observation_dtype)
    random = np.random.default_rng(seed)
    for variable in network.trainable_variables:
        variable.assign_add(0.3 * random.normal(size=variable.shape))
    return network


def random_inputs(seed=0, resets=False):
    random = np.random.default_rng(seed)
    return NetworkInputs(
        observations=tf.constant(random.normal(size=(T, B, 3, 2)), tf.float32),
        last_actions=tf.constant(random.integers(0, A, (T, B)), tf.int32),
        last_rewards=tf.constant(random.normal(size=(T, B)), tf.float32),
        resets=tf.constant(random.uniform(size=(T, B)) < 0.3 if resets else np.zeros((T, B), bool)),
    )


def random_core_state(network, seed=1):
    shape = (B, network.settings.core_state_size)
    return tf.constant(np.random.default_rng(seed).normal(size=shape), network.dtype)


def rows(inputs, start, stop):
    return NetworkInputs(*(array[start:stop] for array in inputs))


def weight_shapes(network, ending):
    return [tuple(v.shape) for v in network.trainable_variables if ending in v.name]


def assert_equal_outputs(first, second, **tolerances):
    assert (first.reference_values is None) == (second.reference_values is None)
    for one, other in zip(first, second, strict=True):
        if one is not None:
            np.testing.assert_allclose(one, other, **tolerances)


# Ground truth.


@pytest.mark.parametrize("core", ["none", "lstm"])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_shapes_and_dtypes(core, dtype):
    network = make(dtype, core=core, eta_embedding_size=2, last_action_and_reward=True)
    state_size = 8 if core == "lstm" else 0
    assert network.settings.core_state_size == state_size
    state = network.initial_core_state(B)
    np.testing.assert_array_equal(state, np.zeros((B, state_size)))
    output = network(random_inputs(), state, ETA)
    assert output.policy_logits.shape == (T, B, A)
    assert output.values.shape == (T, B)
    assert output.core_state.shape == (B, state_size)
    features = network.body(random_inputs().observations)
    assert features.shape == (T, B, network.num_features) and features.dtype == dtype
    assert output.reference_values is None
    assert output.auxiliary == ()
    assert {tensor.dtype for tensor in output if isinstance(tensor, tf.Tensor)} == {dtype}
    assert {v.dtype for v in network.trainable_variables} == {dtype}


def test_a_second_value_head_has_weights_of_its_own():
    network = make(second_value_head=True)
    before = network(random_inputs(), network.initial_core_state(B), ETA)
    assert before.reference_values.shape == (T, B)
    assert np.all(before.reference_values != before.values)
    network._value_head.b.assign(network._value_head.b + 1.0)
    after = network(random_inputs(), network.initial_core_state(B), ETA)
    np.testing.assert_array_equal(after.reference_values, before.reference_values)
    assert np.all(after.values != before.values)


def test_every_state_may_be_fed_its_own_eta():
    network = make(tf.float64, eta_embedding_size=3)
    inputs, state = random_inputs(), network.initial_core_state(B)
    etas = tf.constant(np.random.default_rng(3).normal(size=(T, B, 2)))
    output = network(inputs, state, etas)
    for t in range(T):
        for b in range(B):
            alone = network(inputs, state, etas[t, b])
            np.testing.assert_allclose(output.values[t, b], alone.values[t, b], rtol=1e-12)
            np.testing.assert_allclose(
                output.policy_logits[t, b], alone.policy_logits[t, b], rtol=1e-12
            )


@pytest.mark.parametrize("embedding", [0, 16])
@pytest.mark.parametrize("action_and_reward", [False, True])
@pytest.mark.parametrize("sizes", [(8,), (7, 8)])
def test_inputs_of_the_last_hidden_layer_are_rows_of_its_matrix(
    embedding, action_and_reward, sizes
):
    """relu(W₁ φ + W₂ [action, reward, e_η] + b): one layer that sees φ and all that joins."""
    network = make(
        tf.float64,
        mlp_sizes=sizes,
        eta_embedding_size=embedding,
        last_action_and_reward=action_and_reward,
    )
    inputs = random_inputs()
    output = network(inputs, network.initial_core_state(B), ETA)
    values = {v.name.removesuffix(":0").removeprefix("actor_critic/"): v.numpy()
              for v in network.trainable_variables}  # fmt: skip
    phi = network.body(inputs.observations).numpy().reshape(T * B, -1)
    if len(sizes) == 1:  # the flattened observation
        np.testing.assert_array_equal(phi, inputs.observations.numpy().reshape(T * B, -1))
    parts = []
    if action_and_reward:
        parts += [np.eye(A)[inputs.last_actions.numpy().ravel()]]
        parts += [inputs.last_rewards.numpy().reshape(-1, 1)]
    if embedding:
        e_eta = ETA.numpy() @ values["eta_embedding/w"] + values["eta_embedding/b"]
        parts.append(np.tile(e_eta, (T * B, 1)))
    last = f"mlp_torso/mlp/linear_{len(sizes) - 1}"
    matrix, seen = values[f"{last}/w"], [phi]
    if parts:
        matrix, seen = np.concatenate([matrix, values["joined/w"]]), [phi, *parts]
    hidden = np.maximum(np.concatenate(seen, axis=-1) @ matrix + values[f"{last}/b"], 0.0)
    expected = hidden @ values["value_head/w"] + values["value_head/b"]
    np.testing.assert_allclose(output.values.numpy().reshape(-1, 1), expected, rtol=1e-6)


def test_the_difference_between_two_etas_varies_over_states():
    """e_η changes the shape of V, which a bias of linear heads cannot do."""
    deviations = {}
    for place in (LAST_HIDDEN, HEADS):
        network = make(tf.float64, eta_embedding_size=4, eta_embedding_place=place)
        state = network.initial_core_state(B)
        one, other = (network(random_inputs(), state, eta).values for eta in (ETA, 3.0 * ETA))
        deviations[place] = np.std(one - other)
    assert deviations[HEADS] < 1e-12 and deviations[LAST_HIDDEN] > 1e-3


def test_the_rows_of_eta_are_initialised_like_the_others():
    """As one matrix would that sees φ and what joins: a deviation of 1/√(fan-in)."""
    tf.random.set_seed(0)
    settings = NetworkDefinition("mlp", A, mlp_sizes=(400, 400), eta_embedding_size=100)
    network = ActorCritic(settings, tf.float32)
    network.build((3, 2), np.float32)
    (joined,) = [v.numpy() for v in network.trainable_variables if "joined" in v.name]
    # Truncated at two standard deviations, which leaves 0.88 of one.
    np.testing.assert_allclose(joined.std(), 0.88 / np.sqrt(500), rtol=0.02)


@pytest.mark.parametrize("embedding", [0, 16])
@pytest.mark.parametrize("action_and_reward", [False, True])
def test_the_inputs_of_the_heads_with_eta_at_the_heads(embedding, action_and_reward):
    """Torso, one-hot action and reward, e_η, side by side."""
    width = 8 + (A + 1) * action_and_reward + embedding
    network = make(
        eta_embedding_size=embedding,
        eta_embedding_place=HEADS,
        last_action_and_reward=action_and_reward,
    )
    assert weight_shapes(network, "joined") == []
    assert weight_shapes(network, "policy_head/w") == [(width, A)]
    assert weight_shapes(network, "value_head/w") == [(width, 1)]
    assert weight_shapes(network, "eta_embedding/w") == ([(2, 16)] if embedding else [])
    assert weight_shapes(network, "eta_embedding/b") == ([(16,)] if embedding else [])


def test_the_lstm_sees_the_same_and_feeds_the_heads():
    network = make(core="lstm", eta_embedding_size=16, last_action_and_reward=True)
    width = 8 + A + 1 + 16
    assert weight_shapes(network, "policy_head/w") == [(4, A)]
    assert weight_shapes(network, "value_head/w") == [(4, 1)]
    lstm = sorted(weight_shapes(network, "lstm"))
    assert lstm == [(4, 16), (16,), (width, 16)]


def test_parameters_of_the_whole_atari_network():
    network = make(description=IMAGES, torso="shallow", eta_embedding_size=16)
    count = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
    assert count == 676_144 + (2 * 16 + 16) + 16 * 256 + (256 * 3 + 3) + (256 + 1)


def test_time_and_batch_positions_are_kept():
    """State (t, b) of a feed-forward network is seen by output (t, b) alone."""
    network = make(eta_embedding_size=2, last_action_and_reward=True)
    inputs = random_inputs()
    before = network(inputs, network.initial_core_state(B), ETA)
    moved = np.zeros((T, B, 1, 1), np.float32)
    moved[2, 1] = 1.0
    changed = inputs._replace(observations=inputs.observations + moved)
    after = network(changed, network.initial_core_state(B), ETA)
    different = np.abs(before.values - after.values) > 1e-5
    np.testing.assert_array_equal(different, moved[..., 0, 0] > 0)
    different = np.any(np.abs(before.policy_logits - after.policy_logits) > 1e-5, axis=-1)
    np.testing.assert_array_equal(different, moved[..., 0, 0] > 0)


# What is looked at.


@pytest.mark.parametrize("core", ["none", "lstm"])
@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("name", ["last_actions", "last_rewards"])
def test_the_last_action_and_reward_are_inputs_only_if_enabled(name, enabled, core):
    network = make(core=core, last_action_and_reward=enabled)
    inputs = random_inputs()
    other = (getattr(inputs, name) + 1) % A if name == "last_actions" else inputs.last_rewards + 1
    state = random_core_state(network)
    first = network(inputs, state, ETA)
    second = network(inputs._replace(**{name: other}), state, ETA)
    assert np.all(first.values.numpy() != second.values.numpy()) == enabled
    assert np.any(first.values.numpy() != second.values.numpy()) == enabled


@pytest.mark.parametrize("size", [0, 2])
def test_eta_matters_only_if_embedded(size):
    network = make(eta_embedding_size=size)
    state = network.initial_core_state(B)
    first = network(random_inputs(), state, ETA)
    for other in (ETA + [0.1, 0.0], ETA + [0.0, 0.1]):  # γ and λ alike
        second = network(random_inputs(), state, other)
        assert np.all(first.values.numpy() != second.values.numpy()) == bool(size)
        assert np.any(first.values.numpy() != second.values.numpy()) == bool(size)


@pytest.mark.parametrize("kind", ["logits", "values"])
def test_every_eta_can_be_fed(kind):
    network = make(eta_embedding_size=4)
    for gamma in (0.0, 0.3, 0.99, 1.0):
        for lambda_ in (0.0, 0.7, 1.0):
            fed = embedding_input([tf.constant(gamma), tf.constant(lambda_)], kind)
            output = network(random_inputs(), network.initial_core_state(B), fed)
            assert np.all(np.isfinite(output.values))
            assert np.all(np.isfinite(output.policy_logits))


# The core.


def test_the_lstm_equals_numpy_loops():
    network = make(tf.float64, core="lstm")
    inputs, start = random_inputs(), random_core_state(network)
    values = {v.name.removesuffix(":0"): v.numpy() for v in network.trainable_variables}

    def find(ending):
        (value,) = [value for name, value in values.items() if name.endswith(ending)]
        return value

    def sigmoid(array):
        return 1.0 / (1.0 + np.exp(-array))

    hidden, cell = np.split(start.numpy(), 2, axis=-1)  # the hidden state comes first
    for t in range(T):
        observations = inputs.observations.numpy()[t].reshape(B, -1)
        features = np.maximum(observations @ find("linear_0/w") + find("linear_0/b"), 0.0)
        gates = features @ find("lstm/w_i") + hidden @ find("lstm/w_h") + find("lstm/b")
        update, forget, candidate, output = np.split(gates, 4, axis=-1)
        cell = sigmoid(forget) * cell + sigmoid(update) * np.tanh(candidate)
        hidden = sigmoid(output) * np.tanh(cell)
    actual = network(inputs, start, ETA)
    np.testing.assert_allclose(actual.core_state, np.concatenate([hidden, cell], axis=-1))
    logits = hidden @ find("policy_head/w") + find("policy_head/b")
    np.testing.assert_allclose(actual.policy_logits[-1], logits)
    np.testing.assert_allclose(
        actual.values[-1], (hidden @ find("value_head/w") + find("value_head/b"))[:, 0]
    )


@pytest.mark.parametrize("split", [1, 3])
def test_an_unroll_in_two_pieces_is_the_unroll(split):
    network = make(tf.float64, core="lstm", eta_embedding_size=2)
    inputs, state = random_inputs(resets=True), random_core_state(network)
    joined = network(inputs, state, ETA)
    first = network(rows(inputs, 0, split), state, ETA)
    second = network(rows(inputs, split, T), first.core_state, ETA)
    np.testing.assert_allclose(
        joined.policy_logits, np.concatenate([first.policy_logits, second.policy_logits])
    )
    np.testing.assert_allclose(joined.values, np.concatenate([first.values, second.values]))
    np.testing.assert_allclose(joined.core_state, second.core_state)
    # The state does carry something.
    forgetful = network(rows(inputs, split, T), network.initial_core_state(B), ETA)
    assert np.abs(forgetful.values - second.values).max() > 1e-3


@pytest.mark.parametrize("row", [0, 2])
def test_a_reset_is_a_fresh_start_before_its_row(row):
    network = make(tf.float64, core="lstm")
    inputs, state = random_inputs(), random_core_state(network)
    resets = np.zeros((T, B), bool)
    resets[row, 1] = True
    after = network(inputs._replace(resets=tf.constant(resets)), state, ETA)
    never = network(inputs, state, ETA)
    fresh = network(rows(inputs, row, T), network.initial_core_state(B), ETA)
    np.testing.assert_allclose(after.values[row:, 1], fresh.values[:, 1])
    np.testing.assert_allclose(after.policy_logits[row:, 1], fresh.policy_logits[:, 1])
    np.testing.assert_allclose(after.core_state[1], fresh.core_state[1])
    # Earlier rows and the other environments go on.
    np.testing.assert_array_equal(after.values[:row], never.values[:row])
    others = [0, 2]
    np.testing.assert_allclose(
        after.values.numpy()[:, others], never.values.numpy()[:, others], rtol=1e-12
    )
    assert np.abs(after.values[row, 1] - never.values[row, 1]) > 1e-3


def test_resets_do_nothing_without_a_core():
    network = make()
    state = network.initial_core_state(B)
    assert_equal_outputs(
        network(random_inputs(resets=True), state, ETA), network(random_inputs(), state, ETA)
    )


# The network at given parameters.


def at_parameters(network, parameters, inputs, state):
    features = network.body_at(parameters, inputs.observations)
    return network.heads_at(parameters, features, inputs, state, ETA)


VARIANTS = [
    {},
    {"core": "lstm", "eta_embedding_size": 2, "last_action_and_reward": True},
]


@pytest.mark.parametrize("settings", VARIANTS)
def test_at_its_own_weights_it_is_the_network(settings):
    network = make(**settings)
    inputs, state = random_inputs(resets=True), random_core_state(network)
    own = [variable.read_value() for variable in network.trainable_variables]
    assert_equal_outputs(
        at_parameters(network, own, inputs, state), network(inputs, state, ETA), rtol=0
    )


@pytest.mark.parametrize("settings", VARIANTS)
def test_at_given_parameters_only_those_count(settings):
    network, other = make(seed=0, **settings), make(seed=1, **settings)
    inputs, state = random_inputs(), random_core_state(network)
    before = [variable.numpy() for variable in network.trainable_variables]
    given = [variable.read_value() for variable in other.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(given)
        output = at_parameters(network, given, inputs, state)
        total = tf.reduce_sum(output.values) + tf.reduce_sum(output.policy_logits**2)
    gradients = tape.gradient(total, [*given, *network.trainable_variables])
    assert_equal_outputs(output, other(inputs, state, ETA), rtol=0)
    for gradient, tensor in zip(gradients, given, strict=False):
        assert gradient.shape == tensor.shape and np.any(gradient.numpy() != 0)
    assert gradients[len(given) :] == [None] * len(given)
    for variable, value in zip(network.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    # And afterwards it is itself again.
    assert np.all(network(inputs, state, ETA).values.numpy() != output.values.numpy())


def test_a_wrong_number_of_parameters_is_refused():
    network = make()
    with pytest.raises(ValueError):
        at_parameters(network, [tf.zeros([1])], random_inputs(), network.initial_core_state(B))


# Determinism.


def test_the_seed_makes_the_weights():
    first, again, other = make(seed=3), make(seed=3), make(seed=4)
    for one, two, three in zip(
        *(network.trainable_variables for network in (first, again, other)), strict=True
    ):
        np.testing.assert_array_equal(one, two)
        assert np.any(one.numpy() != three.numpy())
