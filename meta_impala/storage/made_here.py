"""Whether a folder was made by this user, on this machine, in this place.

Ray Tune keeps its state as pickles, which run code when they are read. A folder from somebody else
must not do that, and its content cannot say whose it is. So the first start draws a secret, and
keeps it twice: in the folder, and in the user's own state folder (`$XDG_STATE_HOME/meta_impala`,
by default below `~/.local/state`), under the folder's path.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import pathlib
import secrets

from meta_impala.errors import one_line, warn
from meta_impala.storage.files import make_folder, read_bounded, write_atomically

_FILE = "made_here"
_MAX_BYTES = 200


def mark(folder: pathlib.Path) -> None:
    """Marks a folder as made here. If that cannot be kept, there is a warning."""
    secret = f"{secrets.token_hex(32)}\n"
    try:
        make_folder(folder, parents=True)
        make_folder(_state(folder).parent, parents=True)
        write_atomically(_state(folder), secret)
        write_atomically(folder / _FILE, secret)
    except (OSError, RuntimeError) as error:
        warn(
            f"warning: {folder}: that you made this folder could not be recorded "
            f"({one_line(error)}); to continue it, give --trust_modules"
        )


def is_made_here(folder: pathlib.Path) -> bool:
    """Whether `mark` has marked it."""
    try:
        here = read_bounded(_state(folder), _MAX_BYTES)
        there = read_bounded(folder / _FILE, _MAX_BYTES)
    except (OSError, RuntimeError, ValueError):
        return False
    return len(here) > 64 and hmac.compare_digest(here, there)


def _state(folder: pathlib.Path) -> pathlib.Path:
    """The user's own copy of the secret. Raises RuntimeError if there is no home folder."""
    given = os.environ.get("XDG_STATE_HOME", "")
    home = pathlib.Path(given) if os.path.isabs(given) else pathlib.Path.home() / ".local/state"
    place = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()
    return home / "meta_impala" / place
