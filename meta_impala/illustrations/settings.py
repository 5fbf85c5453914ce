"""Every switch of the illustrative examples once: help, default and allowed values.

`python -m meta_impala.illustrative` makes its flags from this dataclass. Nothing here imports
TensorFlow, so that a mistake is reported at once.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from meta_impala.config import allowed_range, nearest
from meta_impala.errors import UserError

DISCOUNT, BOOTSTRAP = "discount", "bootstrap"
ARRIVED, LEFT = "arrived", "left"

# What is learned in each example; the other meta-parameter is fixed.
LEARNED = {DISCOUNT: "gamma", BOOTSTRAP: "lambda"}
_DEFAULT_NUM_STATES = {DISCOUNT: 10, BOOTSTRAP: 9}
# The largest reward and value; squares of a sum of them are numbers still.
_MOST = 1e6


def _switch(
    default: Any,
    help_text: str,
    *,
    flag: str = "",
    low: float | None = None,
    high: float | None = None,
    low_open: bool = False,
    choices: tuple[str, ...] = (),
) -> Any:
    metadata = {
        "help": help_text,
        "flag": flag,
        "low": low,
        "high": high,
        "low_open": low_open,
        "high_open": False,
        "choices": choices,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """All switches. `None` means "the example's own" until `resolve` is called."""

    example: str | None = _switch(
        None,
        "discount: γ(s) in a chain of signal and noise; bootstrap: λ(s) in a chain of bottlenecks "
        "and aliased states.",
        choices=(DISCOUNT, BOOTSTRAP),
    )
    seeds: int = _switch(20, "Independent runs, all in one graph.", low=1, high=1000)
    first_seed: int = _switch(0, "Seed of the first run; the others count up.", low=0, high=10**9)
    episodes: int = _switch(4000, "Episodes of a run, each one inner update.", low=1, high=10**7)
    points: int = _switch(100, "Points of the curves besides the start.", low=1, high=10_000)

    # The process.
    num_states: int | None = _switch(
        None,
        "States that are left with a reward; the terminal state comes after the last. Default: 10 "
        "in discount, 9 in bootstrap (there it must be odd: a bottleneck at either end).",
        low=2,
        high=50,
    )
    branches: int = _switch(
        4, "bootstrap: n, aliased states of one step, equally likely.", low=2, high=1000
    )
    signal: float = _switch(
        0.1, "discount: reward on leaving a signal state.", low=-_MOST, high=_MOST
    )
    noise: float = _switch(
        1.0,
        "Standard deviation of the noise reward (discount) or of ±r_i (bootstrap).",
        low=0.0,
        high=_MOST,
    )
    last_reward: str = _switch(
        "zero",
        "bootstrap: reward on leaving the last bottleneck; random draws ±r_i once more, and no "
        "negation follows.",
        choices=("zero", "random"),
    )
    aliasing: str = _switch(
        "step",
        "bootstrap: which states look the same. step: the n states of a time step; all: aliased "
        "states of every time step.",
        choices=("step", "all"),
    )

    # The prediction, equations (8) and (9).
    inner_optimizer: str = _switch("sgd", "Optimiser of θ.", choices=("sgd", "rmsprop"))
    inner_step_size: float = _switch(
        0.5,
        "α of v ← v + α (g − v). The paper's J has no ½, ours has, so its α is half ours.",
        low=0.0,
        low_open=True,
        high=100.0,
    )
    initial_value: float = _switch(
        0.0, "v of every state before the first episode.", low=-_MOST, high=_MOST
    )
    theta: str = _switch(
        "online",
        "online: θ is kept from episode to episode; reset: θ is reset before every episode.",
        choices=("online", "reset"),
    )

    # The meta-parameters, equations (2), (4), (5), (7), (10) and (11).
    indexing: str = _switch(
        ARRIVED,
        "Whether γ(s) and λ(s) of a transition are those of the state arrived in or left.",
        choices=(ARRIVED, LEFT),
    )
    gamma: float | None = _switch(
        None,
        "γ if fixed (default 1), its start if learned (default 0.5, strictly between 0 and 1).",
        low=0.0,
        high=1.0,
    )
    lambda_: float | None = _switch(
        None,
        "λ if fixed (default 1), its start if learned (default 0.5, strictly between 0 and 1).",
        flag="lambda",
        low=0.0,
        high=1.0,
    )
    reference_gamma: float = _switch(1.0, "γ' of the meta objective.", low=0.0, high=1.0)
    reference_lambda: float = _switch(1.0, "λ' of the meta objective.", low=0.0, high=1.0)
    meta_optimizer: str = _switch("adam", "Optimiser of the logits of η.", choices=("adam", "sgd"))
    meta_step_size: float = _switch(
        0.02, "β, step size of the logits of η.", low=0.0, low_open=True, high=1e6
    )
    trace_decay: float = _switch(
        0.0, "μ of equation (4); 0 is the exact gradient of one update.", low=0.0, high=1.0
    )
    trace: str = _switch(
        "identity",
        "A of equation (4) when μ > 0. identity: μ I; full: μ (I + ∂f/∂θ).",
        choices=("identity", "full"),
    )

    @property
    def learned(self) -> str:
        """The meta-parameter that is learned, one per observation: "gamma" or "lambda"."""
        return LEARNED[str(self.example)]

    @property
    def start(self) -> float:
        """Where the learned meta-parameter starts."""
        start = self.gamma if self.learned == "gamma" else self.lambda_
        if start is None:
            raise ValueError("the settings must be resolved first")
        return start


def flag_name(field: dataclasses.Field) -> str:
    """The name of a switch on the command line (`lambda`, not `lambda_`)."""
    return field.metadata["flag"] or field.name


FIELDS: dict[str, dataclasses.Field] = {
    flag_name(field): field for field in dataclasses.fields(Settings)
}
_TYPES = typing.get_type_hints(Settings)


def field_type(field: dataclasses.Field) -> type:
    """The plain type of a switch: int, float or str."""
    declared = _TYPES[field.name]
    kinds = [kind for kind in typing.get_args(declared) if kind is not type(None)]
    return kinds[0] if kinds else declared


def allowed(field: dataclasses.Field) -> str:
    """The allowed values of a switch, as a phrase."""
    metadata = field.metadata
    if metadata["choices"]:
        return "one of " + " | ".join(metadata["choices"])
    return allowed_range(metadata)


def _check(field: dataclasses.Field, value: Any) -> None:
    name, metadata, kind = flag_name(field), field.metadata, field_type(field)
    if kind is str:
        if value not in metadata["choices"]:
            hint = nearest(str(value), metadata["choices"])
            raise UserError(f"--{name}={value}: must be {allowed(field)}{hint}")
        return
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise UserError(f"--{name}={value!r}: must be of type {kind.__name__}")
    low, high = metadata["low"], metadata["high"]
    is_high_enough = value > low if metadata["low_open"] else value >= low  # false for NaN
    if not (is_high_enough and value <= high):
        raise UserError(f"--{name}={value}: must be finite and {allowed(field)}")


def resolve(settings: Settings) -> Settings:
    """Checks every switch and fills in the example's own defaults; needs no TensorFlow.

    Raises:
      UserError: one line with the flag, its value and what is allowed.
    """
    if settings.example is None:
        raise UserError(f"--example: must be given, {allowed(FIELDS['example'])}")
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is not None:
            _check(field, value)
    example = settings.example
    defaults: dict[str, Any] = {}
    if settings.num_states is None:
        defaults["num_states"] = _DEFAULT_NUM_STATES[example]
    for name, attribute in (("gamma", "gamma"), ("lambda", "lambda_")):
        value = getattr(settings, attribute)
        learned = name == LEARNED[example]
        if value is None:
            defaults[attribute] = 0.5 if learned else 1.0
        elif learned and value in (0.0, 1.0):
            raise UserError(
                f"--{name}={value}: {name} is learned in {example}, so its start must lie in the "
                "open range (0, 1): at exactly 0 or 1 its logit is infinite"
            )
    settings = dataclasses.replace(settings, **defaults)
    if example == BOOTSTRAP and settings.num_states is not None and settings.num_states % 2 == 0:
        raise UserError(
            f"--num_states={settings.num_states}: must be odd in bootstrap, so that every random "
            "reward is followed by its negation"
        )
    if settings.inner_optimizer == "sgd" and settings.inner_step_size >= 2:
        raise UserError(
            f"--inner_step_size={settings.inner_step_size}: must be below 2 with "
            "--inner_optimizer=sgd, where v ← v + α (g − v) diverges"
        )
    if settings.points > settings.episodes:
        settings = dataclasses.replace(settings, points=settings.episodes)
    return settings
