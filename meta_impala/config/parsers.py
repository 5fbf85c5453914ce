"""Parsers of flags, one for each type of setting, and of two flags of `evaluate`.

Parsers raise UserError themselves: absl would add its own words to a ValueError.
"""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Collection
from typing import Any

from absl import flags

from meta_impala.config.fields import MAX_FRAMES
from meta_impala.config.text import normalized, shown
from meta_impala.errors import UserError


class _Parser(flags.ArgumentParser):
    """A parser that knows its flag's name.

    Attributes:
      name: of the flag.
    """

    kind = ""
    allowed = ""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def flag_type(self) -> str:
        """The type shown in help."""
        return self.kind

    def parse(self, argument: Any) -> Any:
        """The value of a text (or of a default, which may be of the flag's type already)."""
        try:
            return self.convert(argument)
        except (ValueError, TypeError, OverflowError):
            raise UserError(f"--{self.name}={shown(argument)}: must be {self.allowed}") from None

    def convert(self, argument: Any) -> Any:
        """As `parse`, but raises ValueError, TypeError or OverflowError."""
        raise NotImplementedError


class BoolParser(_Parser):
    """true or false."""

    kind = "bool"
    allowed = "true or false"

    def convert(self, argument: Any) -> bool:
        """As absl: true, t and 1, or false, f and 0, in upper or lower case."""
        return flags.BooleanParser().parse(argument)


class FloatParser(_Parser):
    """A number."""

    kind = "float"
    allowed = "a number"

    def convert(self, argument: Any) -> float:
        """As Python reads a float."""
        return float(argument)


class IntegerParser(_Parser):
    """A whole number."""

    kind = "int"
    allowed = "a whole number"

    def convert(self, argument: Any) -> int | None:
        """As Python reads an int, in decimal or (0x) hexadecimal digits."""
        return flags.IntegerParser().convert(argument)


class IntegerOrAutoParser(IntegerParser):
    """A whole number, or auto: None, for which `resolve` chooses a value."""

    allowed = "a whole number, or auto"

    def convert(self, argument: Any) -> int | None:
        """None for auto."""
        return None if argument == "auto" else super().convert(argument)


_FRAMES = re.compile(r"([+-]?[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE]\+?[0-9]{1,4})?)([kKmMgGbB]?)")

_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}


class FramesParser(_Parser):
    """A whole number of frames, as people write millions: 200_000_000, 1e6, 10M, 2.5k."""

    kind = "int"
    allowed = "a whole number of frames, for example 200000000, 200_000_000, 1e6, 2.5k or 10M"

    def convert(self, argument: Any) -> int:
        """Exact: decimal, not binary, fractions. More than `MAX_FRAMES` is a UserError."""
        if isinstance(argument, int) and not isinstance(argument, bool):
            return argument
        match = _FRAMES.fullmatch(argument.strip())
        if match is None:
            return flags.IntegerParser().convert(argument)  # such as 0x10
        number = decimal.Decimal(match[1].replace("_", ""))
        if number.adjusted() > 20:  # before it is written out
            raise UserError(f"--{self.name}={shown(argument)}: must be at most {MAX_FRAMES}")
        frames = number * _FACTORS[match[2].lower()]
        if frames != frames.to_integral_value():
            raise ValueError(argument)
        return int(frames)


class RangeParser(_Parser):
    """The number of another parser, if it lies in a range; NaN lies in none."""

    def __init__(
        self, inner: _Parser, what: str, low: float, high: float, *, low_open: bool = False
    ) -> None:
        """Args:
        inner: reads the number.
        what: the kind of number, for messages.
        low: smallest value.
        high: largest value.
        low_open: whether `low` itself is refused.
        """
        super().__init__(inner.name)
        self._inner, self._low, self._high, self._low_open = inner, low, high, low_open
        self.kind = inner.kind
        self.range = f"in {'(' if low_open else '['}{low}, {high}]"
        self.allowed = f"{what} {self.range}"

    def convert(self, argument: Any) -> Any:
        """As the other parser; ValueError for a number out of the range."""
        value = self._inner.convert(argument)
        is_enough = value > self._low if self._low_open else value >= self._low
        if not (is_enough and value <= self._high):
            raise ValueError(argument)
        return value


class TextParser(_Parser):
    """Text of printable characters, without white space around it."""

    kind = "string"

    def convert(self, argument: Any) -> str:
        """See `text.normalized`."""
        try:
            return normalized(argument)
        except ValueError as error:
            raise UserError(f"--{self.name}={shown(argument)}: {error}") from None


class ListParser(_Parser):
    """Texts, separated by commas. At least one: none is a shell variable that is not set."""

    kind = "comma separated list of strings"

    def __init__(self, name: str, choices: Collection[str] = ()) -> None:
        """Args:
        name: of the flag.
        choices: what each text must be among; none for any.
        """
        super().__init__(name)
        self._choices = choices
        among = f"among {', '.join(choices)}"
        self.allowed = among if choices else "one or more, separated by commas"

    def convert(self, argument: Any) -> list[str]:
        """As absl, which reads a row of a CSV file. UserError names a text that is no choice."""
        texts: list[str] = flags.ListParser().parse(argument)
        if not texts:
            raise ValueError(argument)
        for text in texts:
            if self._choices and text not in self._choices:
                raise UserError(f"--{self.name}={shown(text)}: must be {self.allowed}")
        return texts


class PathOrBoolParser(flags.ArgumentParser):
    """`--name`, `--noname`, or `--name=PATH`: true, the empty text, or the path."""

    syntactic_help = "true, false, or a path that ends in .mp4"

    def parse(self, argument: Any) -> str:
        """The value of a text."""
        text = str(argument)
        return {"true": "true", "false": ""}.get(text.lower(), text)

    def flag_type(self) -> str:
        """The type shown in help."""
        return "bool or path"


def parse_eta(text: str) -> tuple[float, float]:
    """γ and λ from "GAMMA,LAMBDA".

    Raises:
      UserError: unless they are two numbers in [0, 1].
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 2 or not all(math.isfinite(v) and 0.0 <= v <= 1.0 for v in values):
        raise UserError(
            f"--evaluation_eta={text}: must be GAMMA,LAMBDA, two numbers in [0, 1], for example "
            "0.995,1"
        )
    return values[0], values[1]
