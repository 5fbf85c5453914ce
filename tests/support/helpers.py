"""What the mathematical tests share: random trajectories, small agents, V-trace as in the paper."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Hashable
from unittest import mock

import numpy as np
import tensorflow as tf

from meta_impala.actors.trajectory import Unroll
from meta_impala.agent.builders import make_network, network_definition
from meta_impala.algorithm.meta_parameters import GAMMA, LAMBDA, MetaParameter
from meta_impala.config import AgentSettings, Config, resolve
from meta_impala.environments import Description
from meta_impala.learner.learner import Learner
from meta_impala.learner.make_learner import make_learner
from meta_impala.networks import ActorCritic

FEATURES = Description((3, 2), np.dtype(np.float32), 3, 1)
IMAGES = Description((4, 84, 84), np.dtype(np.uint8), 3, 4)


# What makes a network -> one with these weights, which only serves to be copied.
_NEW: dict[Hashable, ActorCritic] = {}


def _new_network(settings: AgentSettings, description: Description, dtype: tf.DType) -> ActorCritic:
    """As `make_network`, which is called once for equal networks.

    When it is seeded, TensorFlow discards every kernel that it has compiled in the process, and to
    compile those of an update again takes three times what the update does.
    """
    definition = network_definition(settings, description)
    key = definition, settings.seed, settings.precision, description, dtype
    if key not in _NEW:
        _NEW[key] = make_network(settings, description, dtype)
    return copy.deepcopy(_NEW[key])


def new_learner(config: Config, description: Description, **arguments) -> Learner:
    """As `make_learner`, in less time."""
    with mock.patch("meta_impala.learner.make_learner.make_network", _new_network):
        return make_learner(config, description, **arguments)


@dataclasses.dataclass(frozen=True)
class Agent:
    """A learner and what it was made of."""

    config: Config
    description: Description
    network: ActorCritic
    learner: Learner


def make_agent(
    dtype: tf.DType = tf.float32, description: Description = FEATURES, **settings
) -> Agent:
    """A small agent; `settings` are fields of `Config`."""
    defaults = {
        "environment": "Catch",
        "network": "mlp",
        "mlp_sizes": "8",
        "batch_size": 4,
        "meta_batch_size": 3,
        "unroll_length": 5,
    }
    merged = defaults | settings
    config = resolve(Config(**merged, envs_per_actor=merged["batch_size"]))
    learner = new_learner(config, description, dtype=dtype)
    return Agent(config, description, learner.state.network, learner)


def random_batch(
    agent: Agent,
    seed: int,
    *,
    unroll_length: int | None = None,
    batch_size: int | None = None,
    ends: bool = True,
) -> Unroll:
    """A batch of random numbers, `[T+1, B, ...]`, the ratios π/μ of an untrained network about
    half above one and half below, none near it.

    Of a control that draws its η, `eta` has all that is drawn, each inside the first nine tenths of
    its range.

    With `ends`, trajectory 0 has a terminal state in its middle, trajectory 1 a truncation one
    step earlier, and the last begins with the end of an episode.
    """
    config, description = agent.config, agent.description
    rows = (unroll_length or config.unroll_length) + 1
    columns = batch_size or config.batch_size
    random = np.random.default_rng(seed)
    shape = (rows, columns, *description.observation_shape)
    if description.observation_dtype == np.uint8:
        observations = random.integers(0, 256, shape, np.uint8)
    else:
        observations = random.normal(size=shape).astype(np.float32)
    terminations = np.zeros((rows, columns), bool)
    truncations = np.zeros((rows, columns), bool)
    if ends:
        terminations[rows // 2, 0] = True
        truncations[rows // 2 - 1, 1] = True
        terminations[0, -1] = True
    distance = random.uniform(0.3, 1.2, (rows - 1, columns))
    side = random.permutation(np.arange((rows - 1) * columns) % 2 * 2 - 1)
    log_probs = -np.log(description.num_actions) + side.reshape(distance.shape) * distance
    state_size = agent.network.settings.core_state_size
    return Unroll(
        observations=tf.constant(observations),
        last_actions=tf.constant(
            random.integers(0, description.num_actions, (rows, columns)), tf.int32
        ),
        rewards=tf.constant(random.normal(size=(rows, columns)), tf.float32),
        terminations=tf.constant(terminations),
        truncations=tf.constant(truncations),
        behaviour_log_probs=tf.constant(log_probs, tf.float32),
        core_state=tf.constant(0.5 * random.normal(size=(columns, state_size)), tf.float32),
        eta=tf.constant(_random_eta(agent, random, columns), tf.float32),
    )


def _random_eta(agent: Agent, random: np.random.Generator, columns: int) -> np.ndarray:
    schedule = agent.learner.factory.schedule
    eta = random.uniform(0.5, 1.0, (columns, schedule.num_of_unroll))
    for index, name in enumerate(schedule.names[2 : schedule.num_of_unroll], 2):
        low, high = schedule.ranges[name]
        eta[:, index] = low + (high - low) * 0.9 * eta[:, index]
    return eta


def discount_rows(
    gamma: float,
    lambda_: float,
    reference_gamma: float,
    reference_lambda: float,
    gamma_range: tuple[float, float] = (0.0, 1.0),
    lambda_range: tuple[float, float] = (0.0, 1.0),
) -> tuple[MetaParameter, MetaParameter]:
    """A table of γ and λ alone."""
    return (
        MetaParameter(GAMMA, gamma, reference_gamma, *gamma_range, embedded=True, per_state=True),
        MetaParameter(
            LAMBDA, lambda_, reference_lambda, *lambda_range, embedded=True, per_state=True
        ),
    )


def select_columns(batch: Unroll, columns: tf.Tensor) -> Unroll:
    """The unrolls with these indices."""
    return batch.map(
        lambda array: tf.gather(array, columns, axis=1), lambda array: tf.gather(array, columns)
    )


def perturb(agent: Agent, seed: int, scale: float = 0.1) -> None:
    """Moves weights and slots off their special starts (zeros and ones)."""
    random = np.random.default_rng(seed)
    for variable in agent.network.trainable_variables:
        variable.assign_add(scale * random.normal(size=variable.shape))
    for name, slots in agent.learner.state.slots.items():
        for slot in slots:
            if name == "count":
                slot.assign(5)
            elif name == "first_moments":
                slot.assign(random.normal(size=slot.shape))
            else:
                slot.assign(random.uniform(0.05, 1.0, slot.shape))


@contextlib.contextmanager
def weights(variables, values):
    """These values in the variables of a network; the old ones come back."""
    before = [variable.numpy() for variable in variables]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    yield
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log π, `[..., A]`."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def vtrace_ground_truth(
    *,
    log_rhos: np.ndarray,
    rewards: np.ndarray,
    discounts: np.ndarray,
    lambdas: np.ndarray,
    values: np.ndarray,
    step_mask: np.ndarray | None = None,
    rho_clip: float | np.ndarray = 1.0,
    c_clip: float | np.ndarray = 1.0,
    pg_rho_clip: float = 1.0,
    alpha: float | np.ndarray = 1.0,
    next_target: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """V-trace as IMPALA's equation (1) has it, one sum of products per state, O(T²):

        vs_s = V_s + Σ_{t=s}^{T−1} (Π_{i=s}^{t−1} γ_{i+1} c_i) ρ_t (r_{t+1} + γ_{t+1} V_{t+1} − V_t)
        c_i = λ_{i+1} min(c̄, π/μ),  ρ_t = min(ρ̄, π/μ)

    A leak α < 1 adds (1 − α) π/μ to α times both, π/μ cut at 100.

    With `next_target` the policy's return is r + γ vs of the next state, whatever λ is.

    Clips and leak are numbers or `[T, B]`, those of the state that is left. Discounts and λ may be
    complex, for derivatives by the complex step.

    Returns:
      vs and the policy-gradient advantages, both `[T, B]`.
    """
    unroll_length, batch_size = log_rhos.shape
    ratios = np.exp(log_rhos)
    if step_mask is not None:
        ratios = np.where(step_mask == 0, 0.0, ratios)
    dtype = np.result_type(discounts, lambdas, np.float64)

    rho_clips, c_clips, alphas = (
        np.broadcast_to(value, ratios.shape) for value in (rho_clip, c_clip, alpha)
    )

    def leaky(clips: np.ndarray, t: int, b: int) -> float:
        kept, ratio = alphas[t, b], ratios[t, b]
        return kept * min(clips[t, b], ratio) + (1.0 - kept) * min(100.0, ratio)

    vs = np.zeros((unroll_length + 1, batch_size), dtype)
    vs[-1] = values[-1]
    advantages = np.zeros((unroll_length, batch_size), dtype)
    for b in range(batch_size):
        for s in range(unroll_length):
            vs[s, b] = values[s, b]
            for t in range(s, unroll_length):
                product = np.prod(
                    [discounts[i, b] * lambdas[i, b] * leaky(c_clips, i, b) for i in range(s, t)]
                )
                rho = leaky(rho_clips, t, b)
                error = rewards[t, b] + discounts[t, b] * values[t + 1, b] - values[t, b]
                vs[s, b] += product * rho * error
        for t in range(unroll_length):
            mixed = lambdas[t, b] * vs[t + 1, b] + (1.0 - lambdas[t, b]) * values[t + 1, b]
            if next_target:
                mixed = vs[t + 1, b]
            q = rewards[t, b] + discounts[t, b] * mixed
            advantages[t, b] = min(pg_rho_clip, ratios[t, b]) * (q - values[t, b])
    return vs[:-1], advantages


def central_difference(function, x: np.ndarray, step: float) -> np.ndarray:
    """d function / dx for a vector x, of fourth order in the step."""
    gradient = np.zeros_like(x)
    for index in range(len(x)):
        unit = np.zeros_like(x)
        unit[index] = step
        near = function(x + unit) - function(x - unit)
        far = function(x + 2 * unit) - function(x - 2 * unit)
        gradient[index] = (8.0 * near - far) / (12.0 * step)
    return gradient
