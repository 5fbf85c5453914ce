"""Settings of the optimiser of θ."""

from __future__ import annotations

import dataclasses

from meta_impala.config.fields import IMPALA, NEVER, setting

_KINGMA = "Kingma and Ba 2015"


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """The optimiser of the agent's parameters θ."""

    inner_optimizer: str = setting(
        "rmsprop",
        "Optimiser of the agent's parameters.",
        value_if_missing="rmsprop",
        source=IMPALA,
        choices=("rmsprop", "sgd", "adam"),
        on_resume=NEVER,
        also_called=("optimizer",),
    )
    learning_rate: float = setting(
        6e-4,
        "Step size on the agent's parameters at the start of the run.",
        source=IMPALA,
        low=0.0,
        low_open=True,
        also_called=("lr", "alpha", "step_size"),
    )
    learning_rate_schedule: str = setting(
        "linear",
        "linear: to 0 at --total_frames; constant.",
        source=IMPALA,
        choices=("linear", "constant"),
    )
    rmsprop_decay: float = setting(
        0.99,
        "Decay of RMSProp's mean square, which starts at one.",
        source=IMPALA + " (released code)",
        low=0.0,
        high=1.0,
        high_open=True,
    )
    rmsprop_epsilon: float = setting(
        0.01,
        "ε of RMSProp, inside the root.",
        source=IMPALA + ", Atari table; its released code has 0.1",
        low=0.0,
        low_open=True,
    )
    adam_beta1: float = setting(
        0.9,
        "Decay of Adam's first moment (--inner_optimizer=adam).",
        value_if_missing=0.9,
        source=_KINGMA,
        low=0.0,
        high=1.0,
        high_open=True,
    )
    adam_beta2: float = setting(
        0.999,
        "Decay of Adam's second moment (--inner_optimizer=adam).",
        value_if_missing=0.999,
        source=_KINGMA,
        low=0.0,
        high=1.0,
        high_open=True,
    )
    adam_epsilon: float = setting(
        1e-8,
        "ε of Adam, outside the root (--inner_optimizer=adam).",
        value_if_missing=1e-8,
        source=_KINGMA,
        low=0.0,
        low_open=True,
    )
    max_gradient_norm: float = setting(
        40.0,
        "Clip of the gradient's global norm; 0 for none.",
        source=IMPALA,
        low=0.0,
        also_called=("max_grad_norm", "grad_clip", "clip_norm"),
    )
