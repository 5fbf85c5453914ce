"""A large random sample in pieces: each is a test of its own, named by its seed."""

from collections.abc import Callable
from typing import Any

from hypothesis import Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy


def check_piece(
    strategy: SearchStrategy[Any], check: Callable[[Any], None], piece: int, examples: int
) -> None:
    """Checks a number of examples that depend on the number of the piece alone.

    The first example of every piece is the simplest there is. There is no shrinking: an example
    is small as it is, and slow to try.
    """

    @seed(piece)
    @settings(
        max_examples=1 + examples, deadline=None, database=None, phases=[Phase.generate],
    )  # fmt: skip
    @given(strategy)
    def of_piece(drawn):
        check(drawn)

    of_piece()
