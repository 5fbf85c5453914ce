"""Builds network, optimisers and meta-parameters from a resolved config."""

from __future__ import annotations

import tensorflow as tf

from meta_impala.algorithm import losses, optimizers
from meta_impala.algorithm.eta_schedule import EtaSchedule
from meta_impala.algorithm.functions_of_frames import Line, StepFunction
from meta_impala.algorithm.meta_parameters import (
    GAMMA,
    LAMBDA,
    MetaParameter,
    MetaParameters,
)
from meta_impala.config import Config, OptimizerSettings
from meta_impala.config.hyper_parameters import TABLE, numbers_of
from meta_impala.environments import Description
from meta_impala.networks.actor_critic import ActorCritic, NetworkSettings


def meta_parameters_of(config: Config) -> MetaParameters:
    """The table of a resolved config: hyper-parameters of J and U, and which are learned."""
    assert config.lambda_ is not None, "the config is not resolved"
    rows = [
        MetaParameter(
            name, *numbers_of(config, name), embedded=name in config.embedded,
            per_state=row.per_state,
        )
        for name, row in TABLE.items()
    ]  # fmt: skip
    return MetaParameters(tuple(rows), config.learned, config.tracked)


def eta_is_per_state(config: Config) -> bool:
    """Whether η is a function of the state."""
    return bool(config.learned) and config.meta_parameter_scope == "state"


def eta_schedule_of(config: Config, replayed: StepFunction | None = None) -> EtaSchedule:
    """The schedule of η of a resolved config.

    Args:
      config: resolved.
      replayed: with `eta_schedule=replay`, the γ and λ of the file. Actors do not need them: the
        values come with each snapshot.
    """
    return EtaSchedule(
        pairs=config.eta_pairs if config.eta_schedule == "mixture" else (),
        draws=config.eta_draws if config.eta_schedule == "random" else {},
        of_frames=_eta_of_frames(config, replayed),
    )


def _eta_of_frames(config: Config, replayed: StepFunction | None) -> StepFunction | Line | None:
    """γ and λ as a function of frames; what is not varied stays at its constant."""
    assert config.lambda_ is not None, "the config is not resolved"
    fixed = {GAMMA: config.gamma, LAMBDA: config.lambda_}
    if config.eta_schedule == "fixed" and config.varied:
        # The same operations as for the other two, so that a constant is equal to the bit.
        return StepFunction((0,), ((config.gamma, config.lambda_),))
    if config.eta_schedule == "linear":
        ends = {name: (value, value) for name, value in fixed.items()} | config.eta_lines
        (gamma, last_gamma), (lambda_, last_lambda) = ends[GAMMA], ends[LAMBDA]
        return Line((gamma, lambda_), (last_gamma, last_lambda), config.total_frames)
    if config.eta_schedule != "replay" or replayed is None:
        return None
    gammas, lambdas = (
        [pair[index] if name in config.varied else fixed[name] for pair in replayed.values]
        for index, name in enumerate((GAMMA, LAMBDA))
    )
    return StepFunction(replayed.frames, tuple(zip(gammas, lambdas, strict=True)))


def return_settings_of(config: Config) -> losses.ReturnSettings:
    """The settings of the returns besides η."""
    return losses.ReturnSettings(config.pg_rho_clip, config.policy_return)


def meta_weights_of(config: Config) -> dict[str, float]:
    """The weights of the terms of J'."""
    return {
        losses.POLICY: config.meta_policy_cost,
        losses.VALUE: config.meta_baseline_cost,
        losses.ENTROPY: config.meta_entropy_cost,
        losses.KL: config.meta_kl_cost,
        **losses.OWN_META_WEIGHTS,
    }


def make_network(
    config: Config, description: Description, dtype: tf.DType = tf.float32
) -> ActorCritic:
    """The network of a resolved config, with its variables created (seeded by `config.seed`)."""
    settings = NetworkSettings(
        torso=config.network,
        num_actions=description.num_actions,
        core=config.core,
        core_size=config.core_size,
        mlp_sizes=config.mlp_widths,
        eta_embedding_size=config.eta_embedding_size or 0,
        eta_embedding_place=config.eta_embedding_place,
        num_embedded=len(meta_parameters_of(config).embedded),
        last_action_and_reward=config.last_action_and_reward,
        second_value_head=config.second_value_head,
        auxiliary_heads=config.auxiliary_heads,
    )
    tf.random.set_seed(config.seed)
    narrow = config.precision == "bfloat16" and dtype == tf.float32
    network = ActorCritic(settings, dtype, tf.bfloat16 if narrow else None)
    network.build(description.observation_shape, description.observation_dtype)
    return network


def inner_optimizer_of(config: Config) -> optimizers.Optimizer:
    """The optimiser of θ."""
    settings = config.part(OptimizerSettings)
    return optimizers.OPTIMIZERS[config.inner_optimizer](
        settings, config.differentiate_second_moment
    )


def meta_optimizer_of(config: Config) -> optimizers.Optimizer:
    """The optimiser of x."""
    kinds: dict[str, optimizers.Optimizer] = {
        "adam": optimizers.Adam(),
        "rmsprop": optimizers.CorrectedRMSProp(),
        "sgd": optimizers.Sgd(),
    }
    return kinds[config.meta_optimizer]
