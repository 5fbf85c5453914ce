"""Whose code may be imported: what ships with the program, and what the user names.

A name such as `module:Id` imports a module, which runs its code. A run folder, an agent file or a
suite may come from someone else, so a module that one of them names is imported only if the same
module is named on this command line, or `--trust_modules` is given. Every reader of such a file
takes a `Trust` and calls `refuse_modules`.

The arguments of an environment count too: some environments make others, by such a name. They may
also hold addresses and paths, which are none.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import sysconfig
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from absl import flags

from meta_impala.config import Config
from meta_impala.errors import UserError

# Settings whose value may name a module.
SETTINGS = ("environment", "environment_kwargs", "network")
_PACKAGE = "meta_impala"
# `a.b:namespace/Name-v0`; what is after the colon has a letter in each part, a port has none.
_PART = r"(?=[\d_.-]*[^\W\d_])[\w.-]+"
_NAME = re.compile(rf"[^\W\d]\w*(\.[^\W\d]\w*)*:({_PART}/)?{_PART}")
_STANDARD = ("built-in", "frozen", sysconfig.get_path("stdlib") + os.sep)


class Trust(NamedTuple):
    """What a command line allows files to name.

    Attributes:
      modules: that it names itself.
      everything: whether `--trust_modules` was given.
      remedy: what a refusal says to do; empty for the flag.
    """

    modules: frozenset[str] = frozenset()
    everything: bool = False
    remedy: str = ""


NOBODY = Trust()


def module_of(name: str) -> str:
    """The module that a name would import; empty if it names none.

    Spaces and the variants of letters that Unicode knows make no difference: whatever a later
    reader takes for a colon is one here.
    """
    return _plain(name).rpartition(":")[0]


def _plain(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name)
    return "".join(c for c in plain if c.isprintable() and not c.isspace())


def _module_of_argument(text: str) -> str:
    """The module that a text would import if an environment takes it for a name; empty for none.

    Gymnasium imports whatever is before a single colon, and looks at the rest after that. So a text
    that does not look like a name ("localhost:8080", "https://x.org/m") is none only as long as
    there is no such module.
    """
    plain = _plain(text)
    if _NAME.fullmatch(plain):
        return module_of(text)
    for spelling in (text, plain):
        before, colon, rest = spelling.partition(":")
        if colon and ":" not in rest and _is_there(before):
            return module_of(text) or before
    return ""


def _is_there(module: str) -> bool:
    """Whether an import of a module would run code that is not Python's own; runs none itself."""
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top) if top else None
    except ValueError:  # loaded in an unusual way
        return True
    if spec is None:
        return False
    if spec.origin is None:  # a folder without code of its own
        return "." in module
    is_standard = module in sys.stdlib_module_names and spec.origin.startswith(_STANDARD)
    return not is_standard


def _modules_of(value: str) -> Iterator[str]:
    """The modules that the value of a setting may name: itself, or any text of a JSON object."""
    try:
        content = json.loads(value)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        yield module_of(value)
        return
    left: list[Any] = [content]
    while left:
        part = left.pop()
        if isinstance(part, str):
            yield _module_of_argument(part)
        elif isinstance(part, dict):
            left += [*part, *part.values()]
        elif isinstance(part, list):
            left += part


def trusting(values: Iterable[str | None], *, everything: bool = False, remedy: str = "") -> Trust:
    """What is trusted by a command line, or a call, that has these values of `SETTINGS`.

    Args:
      values: of them.
      everything, remedy: as in `Trust`.
    """
    modules = {module for value in values if value for module in _modules_of(value)}
    return Trust(frozenset(modules - {""}), everything, remedy)


def names_modules(config: Config) -> bool:
    """Whether a config names any module, trusted or not."""
    return any(any(_modules_of(getattr(config, name))) for name in SETTINGS)


def define_trust_flag() -> flags.FlagHolder[bool]:
    """`--trust_modules`."""
    return flags.DEFINE_bool(
        "trust_modules",
        False,
        "Import the modules that a run folder, an agent or a suite names (environment=module:Id), "
        "which runs their code. Not needed for what this command line names itself.",
    )


def trust_of_flags() -> Trust:
    """What this command line trusts; of the flags, those that the command has."""
    known = flags.FLAGS
    given = [known[name].value for name in SETTINGS if name in known and known[name].present]
    everything = "trust_modules" in known and known["trust_modules"].value
    return trusting(given, everything=bool(everything))


def refuse_modules(settings: Config | Iterable[tuple[str, Any]], source: Any, trust: Trust) -> None:
    """Checks the names that a file holds, before anything looks for what they mean.

    Args:
      settings: the config of the file, or (name of a setting, value) pairs.
      source: the file, for the message.
      trust: of this command line.

    Raises:
      UserError: if a module is named that is not trusted.
    """
    if isinstance(settings, Config):
        settings = [(name, getattr(settings, name, None)) for name in SETTINGS]
    for name, value in settings:
        for module in _modules_of(value) if isinstance(value, str) else ():
            ships = module in ("", _PACKAGE) or module.startswith(f"{_PACKAGE}.")
            if ships or trust.everything or module in trust.modules:
                continue
            remedy = trust.remedy or (
                f"give --trust_modules if you trust this file, or (train) --{name}={value} yourself"
            )
            raise UserError(
                f"{source}: --{name}={value}: names the module {module}, whose code would be run; "
                f"{remedy}"
            )
