"""A part of a suite's runs, for one of several machines (`--shard`)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from meta_impala.errors import UserError
from meta_impala.experiments.suite import Run


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of several parts of a suite's runs, for a machine or a job of an array: number `index`,
    from 1, of `count`."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard of "K/N".

        Raises:
          UserError: unless 1 <= K <= N.
        """
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"--shard={text}: must be K/N with 1 <= K <= N, for example 1/4")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, runs: Sequence[Run]) -> list[Run]:
        """The runs of this shard: every `count`-th. Seeds that are added later change nothing."""
        return list(runs[self.index - 1 :: self.count])


WHOLE = Shard(1, 1)
