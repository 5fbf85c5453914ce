"""Presets: flag files that come with the package and are found by name (`--preset=laptop`)."""

from __future__ import annotations

import pathlib
from typing import Any

from absl import flags

from meta_impala.config.fields import nearest
from meta_impala.config.flags import define_config_flags, parse_flags
from meta_impala.config.schema import FIELDS, Config
from meta_impala.config.text import shown
from meta_impala.errors import UserError

FOLDER = pathlib.Path(__file__).parents[1] / "presets"
_SUFFIX = ".flags"


def names() -> list[str]:
    """The names of all presets."""
    return sorted(path.stem for path in FOLDER.glob(f"*{_SUFFIX}"))


def find(name: str) -> pathlib.Path:
    """The flag file of a preset.

    Args:
      name: with or without `.flags`.

    Raises:
      UserError: if there is no such preset.
    """
    stem = name.removesuffix(_SUFFIX)
    if stem not in names():
        raise UserError(
            f"--preset={shown(name)}: must be one of {', '.join(names())}{nearest(stem, names())}; "
            "--flagfile=PATH reads a file of your own"
        )
    return FOLDER / f"{stem}{_SUFFIX}"


def summary(name: str) -> str:
    """The first sentence of the comment at the top of a preset."""
    lines = []
    for line in find(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    sentence, _, _ = " ".join(lines).partition(". ")
    return sentence.removesuffix(".")


def preset(name: str, **settings: Any) -> Config:
    """The settings of a preset, for programs.

    Args:
      name: of the preset.
      settings: fields of `Config` that are other than in the preset; λ is `lambda_`.

    Raises:
      UserError: if there is no such preset.
    """
    values = flags.FlagValues()
    define_config_flags(values)
    parse_flags(["preset", f"--flagfile={find(name)}"], values)
    given = {
        field.name: values[flag].value for flag, field in FIELDS.items() if values[flag].present
    }
    return Config(**(given | settings))


class _PresetFlag(flags.Flag):
    """Sets the flags of a preset at its place on the command line: later flags win."""

    def __init__(self, values: flags.FlagValues) -> None:
        super().__init__(
            flags.ArgumentParser(),
            flags.ArgumentSerializer(),
            "preset",
            None,
            f"Settings that come with the program: {', '.join(names())}. The same as --flagfile of "
            "that preset; later flags win.",
        )
        self._values = values

    def parse(self, argument: str) -> None:
        super().parse(argument)
        parse_flags(["preset", f"--flagfile={find(argument)}"], self._values)


def define_preset_flag(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines `--preset`, for a command that has the flags of `Config`.

    Args:
      values: where; the flags of the command, if not given.
    """
    flags.DEFINE_flag(_PresetFlag(values), values)
