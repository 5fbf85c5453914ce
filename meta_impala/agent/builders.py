"""Builds network, optimisers and meta-parameters from a resolved config."""

from __future__ import annotations

import tensorflow as tf

from meta_impala.algorithm import optimizers
from meta_impala.algorithm.eta_schedule import EtaSchedule
from meta_impala.algorithm.meta_parameters import MetaParameters
from meta_impala.config import Config
from meta_impala.environments import Description
from meta_impala.networks.actor_critic import ActorCritic, NetworkSettings


def meta_parameters_of(config: Config) -> MetaParameters:
    """η and η' of a resolved config."""
    assert config.lambda_ is not None, "the config is not resolved"
    return MetaParameters(
        learned=config.learned,
        gamma=config.gamma,
        lambda_=config.lambda_,
        reference_gamma=config.reference_gamma,
        reference_lambda=config.reference_lambda,
        gamma_range=(config.gamma_min, config.gamma_max),
        lambda_range=(config.lambda_min, config.lambda_max),
        tracking=config.tracked,
    )


def eta_is_per_state(config: Config) -> bool:
    """Whether η is a function of the state."""
    return bool(config.learned) and config.meta_parameter_scope == "state"


def eta_schedule_of(config: Config) -> EtaSchedule:
    """What η the unrolls of a resolved config are played with."""
    return EtaSchedule(
        pairs=config.eta_pairs if config.eta_schedule == "mixture" else (),
        draws=config.eta_draws if config.eta_schedule == "random" else {},
        per_state=eta_is_per_state(config),
    )


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
        last_action_and_reward=config.last_action_and_reward,
        second_value_head=config.second_value_head,
    )
    tf.random.set_seed(config.seed)
    narrow = config.precision == "bfloat16" and dtype == tf.float32
    network = ActorCritic(settings, dtype, tf.bfloat16 if narrow else None)
    network.build(description.observation_shape, description.observation_dtype)
    return network


def inner_optimizer_of(config: Config) -> optimizers.Optimizer:
    """The optimiser of θ."""
    through = config.differentiate_second_moment
    if config.inner_optimizer == "sgd":
        return optimizers.Sgd()
    if config.inner_optimizer == "adam":
        return optimizers.Adam(config.adam_beta1, config.adam_beta2, config.adam_epsilon, through)
    return optimizers.RMSProp(config.rmsprop_decay, config.rmsprop_epsilon, through)


def meta_optimizer_of(config: Config) -> optimizers.Optimizer:
    """The optimiser of x."""
    kinds: dict[str, optimizers.Optimizer] = {
        "adam": optimizers.Adam(),
        "rmsprop": optimizers.RMSProp(decay=0.99, epsilon=1e-8),
        "sgd": optimizers.Sgd(),
    }
    return kinds[config.meta_optimizer]
