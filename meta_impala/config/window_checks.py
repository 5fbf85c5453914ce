"""What several inner steps, bootstrapped targets and auxiliary heads exclude; one rule each.

Each raises UserError with one line. The configs here are derived.
"""

from __future__ import annotations

import dataclasses

from meta_impala.config.meta_loss_settings import MetaLossSettings
from meta_impala.config.schema import FIELDS, Config, flag_name
from meta_impala.errors import UserError

# Objective -> the settings that it alone reads and that are no use to the other.
_READ_BY = {
    "validation": [*(flag_name(f) for f in dataclasses.fields(MetaLossSettings)),
                   "meta_advantage_decay"],
    "bootstrapped": ["matching_policy_cost", "matching_value_cost"],
}  # fmt: skip


def check_inner_steps(config: Config) -> None:
    """What several inner updates per meta step exclude."""
    if config.inner_steps == 1 or not config.learned:
        return
    given = f"--inner_steps={config.inner_steps}"
    if config.meta_data in ("held_out", "swap"):
        raise UserError(
            f"--meta_data={config.meta_data}: must be next_batch or same with {given}; it divides "
            "a batch, or two, between one update and its meta step"
        )
    if config.meta_gradient_mode == "accumulative_trace":
        raise UserError(
            f"--meta_gradient_mode=accumulative_trace: must be nested_tapes or "
            f"reverse_over_forward with {given}; a trace carries earlier updates already"
        )
    if config.eta_is_per_state:
        raise UserError(
            f"--meta_parameter_scope={config.meta_parameter_scope}: must be global with {given}; "
            "γ(s) changes with the features of θ, which the meta-gradient through later updates "
            "does not follow"
        )


def check_bootstrap(config: Config) -> None:
    """What a bootstrapped meta objective excludes."""
    if config.meta_objective != "bootstrapped":
        if config.bootstrap_steps > 1:
            raise UserError(
                f"--bootstrap_steps={config.bootstrap_steps}: needs --meta_objective=bootstrapped"
            )
        return
    given = "--meta_objective=bootstrapped"
    if config.learned and not config.matching_policy_cost + config.matching_value_cost:
        raise UserError(f"--matching_policy_cost=0, --matching_value_cost=0: one must be above 0 "
                        f"with {given}")  # fmt: skip
    for name, wanted, why in (
        ("meta_data", ("next_batch", "same"), "the last update of the target is on all of τ'"),
        ("meta_gradient_mode", ("nested_tapes", "reverse_over_forward"), "the target has no trace"),
        ("meta_parameter_scope", ("global",), "the last update of the target is at one η'"),
        ("meta_value_head", ("shared",), "the values that are matched are those of the shared one"),
        ("meta_advantage_normalization", ("none",), "no advantage is in the meta loss"),
    ):
        value = getattr(config, name)
        if config.learned and value not in wanted:
            raise UserError(f"--{name}={value}: must be {' or '.join(wanted)} with {given}; {why}")


def check_meta_weights(config: Config, saved: Config | None = None) -> None:
    """Refuses weights of the meta objective that is not the one of the run: nothing reads them.

    For a run that starts, or is changed: one of an older version that has some opens.

    Args:
      config: derived.
      saved: of the run that is changed: what it has already, it keeps.

    Raises:
      UserError: naming the first setting that is not its default.
    """
    if not config.learned:
        return
    for objective in _READ_BY.keys() - {config.meta_objective}:
        for name in _READ_BY[objective]:
            field = FIELDS[name]
            value = getattr(config, field.name)
            if value in (field.default, getattr(saved, field.name, None)):
                continue
            raise UserError(
                f"--{name}={value:g}: has no effect with --meta_objective={config.meta_objective}; "
                f"must be {field.default:g} (the default), or --meta_objective={objective}"
            )


def check_auxiliary_heads(config: Config) -> None:
    """Heads besides the one that acts learn at an η of their own, which is no input."""
    if not config.auxiliary_heads:
        return
    given = f"--auxiliary_heads={config.auxiliary_heads}"
    if not config.learned:
        raise UserError(f"{given}: needs --meta_parameters to be learned; must be 0")
    if config.eta_embedding_size:
        raise UserError(
            f"--eta_embedding_size={config.eta_embedding_size}: must be 0 with {given}; every head "
            "has an η of its own, and they share their input"
        )
    if config.eta_is_per_state:
        raise UserError(
            f"--meta_parameter_scope={config.meta_parameter_scope}: must be global with {given}; "
            "the η of an auxiliary head is one for all states"
        )
    if config.meta_gradient_mode == "accumulative_trace":
        raise UserError(
            f"--meta_gradient_mode=accumulative_trace: must be nested_tapes or "
            f"reverse_over_forward with {given}; the trace is of one η"
        )
