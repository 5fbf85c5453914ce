"""Builds the objects of an agent and of the method from resolved settings, each once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

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
from meta_impala.config import (
    AgentSettings,
    MetaLossSettings,
    MethodSettings,
    TableSettings,
    refuse_background,
)
from meta_impala.config.hyper_parameters import TABLE, numbers_of
from meta_impala.config.text import shown
from meta_impala.environments import Description
from meta_impala.environments.background import background_of
from meta_impala.errors import UserError
from meta_impala.networks.actor_critic import ActorCritic, NetworkDefinition
from meta_impala.networks.torsos import UNIT, ImageScaling


@dataclasses.dataclass(frozen=True)
class Method:
    """The objects that an update is made of.

    Attributes:
      meta_parameters: the table of η.
      schedule: where η comes from.
      inner_optimizer: of θ.
      meta_optimizer: of x.
      returns: the settings of the returns besides η.
      meta_weights: term -> its weight in J'.
      own_meta_weights: those of them that no setting has, as they were registered.
    """

    meta_parameters: MetaParameters
    schedule: EtaSchedule
    inner_optimizer: optimizers.Optimizer
    meta_optimizer: optimizers.Optimizer
    returns: losses.ReturnSettings
    meta_weights: Mapping[str, float]
    own_meta_weights: Mapping[str, float]


def method_of(settings: MethodSettings, replayed: StepFunction | None = None) -> Method:
    """The objects of the method.

    Args:
      settings: resolved.
      replayed: with `eta_schedule=replay`, what varies, from the file.

    Raises:
      UserError: if an own term of J' is not in `losses.TERMS`, or its weight is no finite number.
    """
    assert (replayed is not None) == (settings.eta_schedule == "replay"), "the file's η"
    schedule = drawn_eta_of(settings)
    own_meta_weights = _own_meta_weights()
    of_frames = _eta_of_frames(settings, schedule.names, settings.total_frames, replayed)
    meta_optimizers: dict[str, optimizers.Optimizer] = {
        "adam": optimizers.Adam(),
        "rmsprop": optimizers.CorrectedRMSProp(),
        "sgd": optimizers.Sgd(),
    }
    return Method(
        meta_parameters=meta_parameters_of(settings),
        schedule=dataclasses.replace(schedule, of_frames=of_frames),
        inner_optimizer=optimizers.OPTIMIZERS[settings.inner_optimizer](
            settings, settings.differentiate_second_moment
        ),
        meta_optimizer=meta_optimizers[settings.meta_optimizer],
        returns=losses.ReturnSettings(settings.pg_rho_clip, settings.policy_return),
        meta_weights=_meta_weights_of(settings) | own_meta_weights,
        own_meta_weights=own_meta_weights,
    )


def meta_parameters_of(settings: TableSettings) -> MetaParameters:
    """The table: hyper-parameters of J and U, and which are learned."""
    assert settings.lambda_ is not None, "the settings are not resolved"
    rows = [
        MetaParameter(
            name, *numbers_of(settings, name), embedded=name in settings.embedded,
            per_state=row.per_state,
        )
        for name, row in TABLE.items()
    ]  # fmt: skip
    return MetaParameters(tuple(rows), settings.learned, settings.tracked, settings.of_states)


def drawn_eta_of(settings: TableSettings) -> EtaSchedule:
    """The η that actors draw; what is a function of frames comes to them with each snapshot."""
    assert settings.lambda_ is not None, "the settings are not resolved"
    given = () if settings.learned else settings.varied
    names = tuple(dict.fromkeys((GAMMA, LAMBDA, *given)))
    numbers = {name: numbers_of(settings, name) for name in names}
    members = settings.eta_members if settings.eta_schedule == "mixture" else ()
    return EtaSchedule(
        names=names,
        fed=settings.embedded,
        ranges={name: (numbers[name].low, numbers[name].high) for name in names[2:]},
        members=[tuple(m.get(name, numbers[name].value) for name in names) for m in members],
        draws=settings.eta_draws if settings.eta_schedule == "random" else {},
    )


def _eta_of_frames(
    settings: TableSettings,
    names: tuple[str, ...],
    total_frames: int,
    replayed: StepFunction | None,
) -> StepFunction | Line | None:
    """η in this order of names as a function of frames; what is not varied is a constant."""
    fixed = [numbers_of(settings, name).value for name in names]
    if settings.eta_schedule == "fixed" and settings.varied:
        # The same operations as for the other two, so that a constant is equal to the bit.
        return StepFunction((0,), (tuple(fixed),))
    if settings.eta_schedule == "linear":
        lines = settings.eta_lines
        ends = [lines.get(name, (value, value)) for name, value in zip(names, fixed, strict=True)]
        return Line(tuple(start for start, _ in ends), tuple(end for _, end in ends), total_frames)
    if replayed is None:
        return None
    columns = dict(zip(settings.varied, zip(*replayed.values, strict=True), strict=True))
    rows = [
        columns.get(name, (value,) * len(replayed.frames))
        for name, value in zip(names, fixed, strict=True)
    ]
    return StepFunction(replayed.frames, tuple(zip(*rows, strict=True)))


def _meta_weights_of(settings: MetaLossSettings) -> dict[str, float]:
    """The weights of the terms of J' that have settings."""
    return {
        losses.POLICY: settings.meta_policy_cost,
        losses.VALUE: settings.meta_baseline_cost,
        losses.ENTROPY: settings.meta_entropy_cost,
        losses.KL: settings.meta_kl_cost,
    }


def _own_meta_weights() -> dict[str, float]:
    """The weights of terms from outside the package, as Python's floats: checkpoints have them."""
    weights = {}
    for name, given in losses.OWN_META_WEIGHTS.items():
        try:
            weight = math.nan if isinstance(given, str | bytes) else float(given)
        except (TypeError, ValueError, OverflowError):
            weight = math.nan
        named = f"losses.OWN_META_WEIGHTS[{shown(repr(name))}]={shown(repr(given))}"
        if not abs(weight) <= float(tf.float32.max):  # false for NaN
            raise UserError(f"{named}: must be a finite number, the weight of a term of J'")
        if name not in losses.TERMS:
            raise UserError(f"{named}: is the weight of no term; must be in losses.TERMS too")
        weights[name] = weight
    return weights


def _image_scaling_of(settings: AgentSettings, description: Description) -> ImageScaling:
    refuse_background(settings, description.game)
    if settings.image_scaling == "unit":
        return UNIT
    assert description.game is not None
    return ImageScaling(*background_of(description.game))


def network_definition(settings: AgentSettings, description: Description) -> NetworkDefinition:
    """What the network is, besides its weights."""
    return NetworkDefinition(
        torso=settings.network,
        num_actions=description.num_actions,
        core=settings.core,
        core_size=settings.core_size,
        mlp_sizes=settings.mlp_widths,
        eta_embedding_size=settings.eta_embedding_size or 0,
        eta_embedding_place=settings.eta_embedding_place,
        num_embedded=len(settings.embedded),
        last_action_and_reward=settings.last_action_and_reward,
        second_value_head=settings.second_value_head,
        auxiliary_heads=settings.auxiliary_heads,
    )


def make_network(
    settings: AgentSettings, description: Description, dtype: tf.DType = tf.float32
) -> ActorCritic:
    """The network, with its variables created, seeded by `settings.seed`.

    TensorFlow's global seed is then that seed, in the whole process: initial weights are drawn by
    operations that know no other.
    """
    definition = network_definition(settings, description)
    tf.random.set_seed(settings.seed)
    narrow = settings.precision == "bfloat16" and dtype == tf.float32
    torso_dtype = tf.bfloat16 if narrow else None
    scaling = _image_scaling_of(settings, description)
    network = ActorCritic(definition, dtype, torso_dtype, image_scaling=scaling)
    network.build(description.observation_shape, description.observation_dtype)
    return network
