"""Example: V-trace, J, J' and the meta-gradient as functions of tensors, for your own network.

    python tools/example_library.py

One update of a linear network and of γ and λ on random trajectories, without actors or files.
"""

import tensorflow as tf

from meta_impala.algorithm import losses, meta_gradient, optimizers, vtrace
from meta_impala.algorithm.meta_parameters import MetaParameter, MetaParameters

# η: γ and λ are learned, the weights of J and the clips of V-trace are constants.
constants = {"policy_cost": 1.0, "baseline_cost": 0.5, "entropy_cost": 0.01}
constants |= {"rho_clip": 1.0, "c_clip": 1.0, "vtrace_alpha": 1.0}
gamma, lambda_ = MetaParameter("gamma", 0.99, reference=0.995), MetaParameter("lambda", 0.95, 1.0)
others = [MetaParameter(name, value, reference=value) for name, value in constants.items()]
eta = MetaParameters((gamma, lambda_, *others), learned=("gamma", "lambda"))
x = [tf.constant(eta.initial_logits())]  # η = σ(x)

theta = [tf.random.normal([8, 4])]  # a linear network: 8 features to 3 policy logits and a value
rmsprop = optimizers.RMSProp(decay=0.99, epsilon=0.01)
slots = rmsprop.initial_slots(theta)
settings = losses.ReturnSettings()


def network(theta, states):
    outputs = states @ theta[0]
    return outputs[..., :3], outputs[..., 3]


def trajectories():  # T = 5 transitions of B = 2 trajectories, and their T + 1 states
    ones = tf.ones([5, 2])
    states, actions = tf.random.normal([6, 2, 8]), tf.random.uniform([5, 2], 0, 3, tf.int32)
    rewards, log_mu = tf.random.normal([5, 2]), tf.math.log(ones / 3)
    return states, losses.Transitions(actions, rewards, ones, ones, log_mu)


(states, tau), (meta_states, meta_tau) = trajectories(), trajectories()


def inner_objective(theta, x):
    return losses.inner_objective(*network(theta, states), tau, eta.values(x[0]), settings)


def rule(g, x):
    return meta_gradient.InnerUpdate(*rmsprop.step(g, slots, 6e-4))


def meta_objective(theta):
    return losses.meta_objective(*network(theta, meta_states), meta_tau, eta.reference(), settings)


step = meta_gradient.nested_tapes(theta, x, inner_objective, rule, meta_objective)
theta, slots = step.inner.parameters, step.inner.update_auxiliary
x = [logits - 1e-3 * gradient for logits, gradient in zip(x, step.meta_gradient, strict=True)]

# V-trace alone; on policy it is the λ-return.
on_policy = {"log_rhos": tf.zeros([5, 2]), "lambdas": tf.fill([5, 2], 0.9)}
values, discounts = network(theta, states)[1], tf.fill([5, 2], 0.99)
returns = vtrace.vtrace(rewards=tau.rewards, discounts=discounts, values=values, **on_policy).vs


if __name__ == "__main__":
    print(dict(zip(eta.learned, step.meta_gradient[0].numpy(), strict=True)))
