"""The hyper-parameters that can be learned: one row each, and the numbers of a run's rows.

A row says which setting its constant is, and where a learned value may lie. The effect of a
hyper-parameter is in the one formula that reads `eta[name]` (`losses.py`, `vtrace.py` and
`update_rule.py` of `algorithm/`). To add one: `register` a row, and use it in a formula.

No TensorFlow here: mistakes in flags are reported before it is imported.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from meta_impala.config.fields import nearest
from meta_impala.config.text import shown
from meta_impala.errors import UserError

GAMMA, LAMBDA = "gamma", "lambda"
NONE = "none"


@dataclasses.dataclass(frozen=True)
class HyperParameter:
    """A row of the table.

    Attributes:
      name: in `--meta_parameters` and in the metrics.
      symbol: for people.
      meaning: one phrase.
      constant: settings (`TableSettings`, or a `Config`) -> the value if it is not learned.
      range_of: constant -> default range (low, high) of a learned value; both ends open.
      start: of a learned value, if the constant lies outside the range; None for the constant.
      per_state: whether it acts at single steps, so that it can be a function of the state, or
        differ between the unrolls of a batch. What acts on the update as a whole (step size,
        decay, clip of the norm) can do neither: an update has no state, and belongs to no unroll.
      in_returns: whether the returns read it. J' then reads its value in η'; of the other rows J'
        reads none: its terms have weights of their own, and it makes no update.
      domain: the smallest and the largest value that makes sense; ranges and η' lie in it.
    """

    name: str
    symbol: str
    meaning: str
    constant: Callable[[Any], float]
    range_of: Callable[[float], tuple[float, float]]
    start: float | None = None
    per_state: bool = False
    in_returns: bool = False
    domain: tuple[float, float] = (0.0, math.inf)


class RowNumbers(NamedTuple):
    """The numbers of a row in one run: the constant or start, the value in η', the range."""

    value: float
    reference: float
    low: float
    high: float


def _unit(constant: float) -> tuple[float, float]:
    return 0.0, 1.0


def _twice(constant: float) -> tuple[float, float]:
    """From 0 to twice the constant, which is then the middle."""
    return 0.0, 2.0 * constant


def _setting(name: str) -> Callable[[Any], float]:
    return lambda settings: float(getattr(settings, name))


_ROWS = (
    HyperParameter(GAMMA, "γ", "discount", _setting("gamma"), _unit, per_state=True,
                   in_returns=True, domain=(0.0, 1.0)),
    HyperParameter(LAMBDA, "λ", "bootstrapping", _setting("lambda_"), _unit, per_state=True,
                   in_returns=True, domain=(0.0, 1.0)),
    HyperParameter("policy_cost", "g_p", "weight of the policy term of J",
                   _setting("policy_cost"), _twice, per_state=True),
    HyperParameter("baseline_cost", "g_v", "weight of the value term of J",
                   _setting("baseline_cost"), _twice, per_state=True),
    HyperParameter("entropy_cost", "g_e", "weight of the entropy term of J",
                   _setting("entropy_cost"), _twice, per_state=True),
    HyperParameter("vtrace_alpha", "α", "share of V-trace's ratios that is clipped",
                   _setting("vtrace_alpha"), _unit, start=0.99, per_state=True, in_returns=True,
                   domain=(0.0, 1.0)),
    HyperParameter("rho_clip", "ρ̄", "clip of V-trace's temporal difference",
                   _setting("rho_clip"), _twice, per_state=True, in_returns=True),
    HyperParameter("c_clip", "c̄", "clip of V-trace's trace", _setting("c_clip"), _twice,
                   per_state=True, in_returns=True),
    HyperParameter("learning_rate_factor", "lr factor", "factor of the scheduled learning rate",
                   lambda settings: 1.0, _twice),
    HyperParameter("rmsprop_decay", "decay", "decay of RMSProp's mean square",
                   _setting("rmsprop_decay"), _unit, domain=(0.0, 1.0)),
    HyperParameter("max_gradient_norm", "clip norm", "clip of the gradient's norm",
                   _setting("max_gradient_norm"), _twice),
)  # fmt: skip

# Settings that name rows, comma-separated, and the words that may stand in their place.
SETTINGS_OF_NAMES = {
    "meta_parameters": (NONE,),
    "meta_parameter_scope": ("global", "state"),
    "embedded_meta_parameters": (NONE,),
    "reference_tracking": (NONE,),
}

# name -> row, in the order of the entries of x.
TABLE: dict[str, HyperParameter] = {row.name: row for row in _ROWS}
# Of the others the name says more.
SYMBOLS_IN_TEXT = {name: TABLE[name].symbol for name in (GAMMA, LAMBDA)}

# γ and λ have flags of their own for these.
_OWN_FLAGS = {
    "meta_parameter_ranges": ("{0}_min", "{0}_max"),
    "meta_parameter_starts": ("{0}",),
    "meta_parameter_references": ("reference_{0}",),
    "eta_random_ranges": ("eta_random_{0}",),
    "eta_linear_ends": ("eta_linear_{0}",),
}


def register(row: HyperParameter) -> None:
    """Adds a row. It can then be named in all of `SETTINGS_OF_NAMES`.

    Raises:
      ValueError: if there is one of this name.
    """
    if row.name in TABLE:
        raise ValueError(f"there is a hyper-parameter {row.name!r} already")
    TABLE[row.name] = row


def in_order(text: str) -> tuple[str, ...]:
    """The rows that a comma-separated text names, in the order of the table; none for "none"."""
    names = {name.strip() for name in text.split(",")}
    return tuple(name for name in TABLE if name in names)


def check_names(flag: str, text: str, words: tuple[str, ...] = (NONE,)) -> None:
    """Every name is in the table, and there once.

    Args:
      flag: whose value the text is.
      text: names, comma-separated.
      words: that may stand in their place, alone.

    Raises:
      UserError: naming the first that is not, with the nearest that is, or that is there twice.
    """
    if text in words:
        return
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in TABLE:
            meant = nearest(name, [*TABLE, *(word for word in words if word != name)])
            raise UserError(
                f"--{flag}={shown(text)}: {shown(name) or 'an empty name'} is no "
                f"meta-parameter{meant}; must be {', '.join(words)}, or among {', '.join(TABLE)}"
            )
        if names.count(name) > 1:
            raise UserError(f"--{flag}={shown(text)}: must have {name} once")


def numbers_by_name(flag: str, text: str, count: int) -> dict[str, tuple[float, ...]]:
    """`NAME:NUMBER;...` or `NAME:LOW,HIGH;...` as numbers.

    Args:
      flag: whose value the text is.
      text: empty for nothing.
      count: of numbers of each name.

    Raises:
      UserError: if it is anything else, or names γ or λ, which have flags of their own.
    """
    result: dict[str, tuple[float, ...]] = {}
    for part in filter(None, text.split(";")):
        name, _, values = (piece.strip() for piece in part.partition(":"))
        if name in (GAMMA, LAMBDA):
            own = " and ".join(f"--{pattern.format(name)}" for pattern in _OWN_FLAGS[flag])
            raise UserError(f"--{flag}={shown(text)}: {name} has {own} for this")
        check_names(flag, name)
        if name in result:
            raise UserError(f"--{flag}={shown(text)}: must have {name} once")
        try:
            numbers = tuple(map(float, values.split(",")))
        except ValueError:
            numbers = ()
        if len(numbers) != count or not all(abs(number) < 1e30 for number in numbers):
            ends = "START,END" if flag == "eta_linear_ends" else "LOW,HIGH"
            wanted = "NAME:NUMBER" if count == 1 else f"NAME:{ends}"
            example = "entropy_cost:0.01" if count == 1 else "entropy_cost:0,0.02"
            raise UserError(
                f"--{flag}={shown(text)}: must be {wanted}, separated by semicolons, for example "
                f"{example}"
            )
        result[name] = numbers
    return result


def numbers_of(settings: Any, name: str) -> RowNumbers:
    """The numbers of one row.

    Args:
      settings: `TableSettings` or a `Config`, whose λ is chosen and whose texts are checked.
      name: of the row.
    """
    row = TABLE[name]
    constant = row.constant(settings)
    if name in (GAMMA, LAMBDA):
        ends = getattr(settings, f"{name}_min"), getattr(settings, f"{name}_max")
        return RowNumbers(constant, getattr(settings, f"reference_{name}"), *ends)
    ranges, starts, references = (
        numbers_by_name(
            f"meta_parameter_{kind}", getattr(settings, f"meta_parameter_{kind}"), count
        )
        for kind, count in (("ranges", 2), ("starts", 1), ("references", 1))
    )
    low, high = ranges.get(name, row.range_of(constant))
    (reference,) = references.get(name, (constant,))
    value = constant
    if name in settings.learned and row.start is not None and not low < constant < high:
        value = low + row.start * (high - low)
    if name in settings.varied:
        (value,) = starts.get(name, (value,))
    return RowNumbers(value, reference, low, high)


def stops_learning(name: str, value: float) -> bool:
    """Whether a value that varies leaves no step: a clip norm of 0 (as a constant, no clip)."""
    return name == "max_gradient_norm" and value <= 0


def allowed_without_learning(settings: Any, name: str) -> tuple[float, float]:
    """The smallest and the largest value that a schedule may give a row (`--eta_schedule`).

    γ and λ may be in [0, 1], the others in their range: what the network is told of them is their
    place in it.

    Args:
      settings: as for `numbers_of`.
      name: of the row.
    """
    if name in (GAMMA, LAMBDA):
        return 0.0, 1.0
    numbers = numbers_of(settings, name)
    return numbers.low, numbers.high
