"""Text from outside: what a setting may contain, and how a message shows it."""

from __future__ import annotations

import re
from typing import Final

MAX_LENGTH: Final = 4096

MAX_SHOWN = 120

# Invisible characters that `str.isprintable` accepts (Unicode's
# Default_Ignorable_Code_Point, and the empty braille pattern).
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def normalized(text: str) -> str:
    """Text of a setting in the form that is used and compared: without surrounding white space.

    Raises:
      ValueError: if it is too long, or has a character that does not print (controls, line breaks,
        zero-width characters, direction marks, spaces other than " ", lone surrogates): two such
        texts may look the same and be different names. The message names the fault.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"must have at most {MAX_LENGTH} characters, it has {len(text)}")
    stripped = text.strip()
    for character in stripped:
        if not is_visible(character):
            raise ValueError(
                f"must consist of printable characters, U+{ord(character):04X} is not one"
            )
    return stripped


def is_visible(character: str) -> bool:
    """Whether a setting may contain it, see `normalized`."""
    return character.isprintable() and not _INVISIBLE.match(character)


def shown(value: object, longest: int = MAX_SHOWN) -> str:
    """A value as a message shows it: one line, escaped and shortened.

    Text is shown as it is, everything else by its `repr`.

    Args:
      value: anything.
      longest: characters of it that are shown.
    """
    try:
        text = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # an int of too many digits; lists of lists of lists
        return f"<{type(value).__name__}>"
    length = len(text)
    text = "".join(
        character if is_visible(character) else character.encode("unicode_escape").decode()
        for character in text[:longest]
    )
    return text if length <= longest else f"{text}… ({length} characters)"


def counted(number: int, noun: str) -> str:
    """ "1 game", "2,000 games"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
