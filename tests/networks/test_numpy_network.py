"""The network that the oracle has in NumPy is the module (equivalence, float64)."""

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import make_agent, perturb, random_batch
from support.numpy_network import Perceptron, is_perceptron, seen_by_module

FED = {"eta_embedding_size": 3}
NETWORKS = {
    "one layer": {"mlp_sizes": "6", "eta_embedding_size": 0},
    "three layers, fed": {"mlp_sizes": "6,5,4", **FED},
    "two value heads": {"mlp_sizes": "5,4", "meta_value_head": "reference", **FED},
    "auxiliary heads": {"mlp_sizes": "5", "auxiliary_heads": 2},
    "everything joins": {"mlp_sizes": "5,4", "last_action_and_reward": True, **FED},
    "joins at the heads": {
        "mlp_sizes": "5,4", "last_action_and_reward": True, "eta_embedding_place": "heads", **FED,
    },
    "at the heads, nothing joins": {
        "mlp_sizes": "5,4", "eta_embedding_place": "heads", "eta_embedding_size": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("per_state", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_perceptron_is_the_module(name, per_state):
    agent = make_agent(tf.float64, **NETWORKS[name])
    perturb(agent, 0, 0.3)
    network, batch, random = agent.network, random_batch(agent, 1), np.random.default_rng(2)
    assert is_perceptron(network)
    shape = tuple(batch.rewards.shape)
    eta_input = random.normal(size=(*shape, 2) if per_state else 2)
    theta = [variable.numpy() for variable in network.trainable_variables]
    perceptron = Perceptron(network)
    np.testing.assert_allclose(
        perceptron.features(theta, batch), network.body(batch.observations), rtol=1e-12, atol=1e-14
    )
    for head in range(1 + network.settings.auxiliary_heads):
        ours = perceptron.seen(theta, batch, 0.5, eta_input, head)
        theirs = seen_by_module(network, batch, 0.5, eta_input, head)
        by_outputs = []
        for one, other in zip(ours[:3], theirs[:3], strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
            by_outputs.append(None if one is None else random.normal(size=one.shape))
        gradients = ours.gradient(*by_outputs)
        for one, other in zip(gradients, theirs.gradient(*by_outputs), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)
        assert sum(np.any(gradient != 0) for gradient in gradients) >= 4
