"""One absl flag for each setting of `Config`."""

from __future__ import annotations

from typing import Any

from absl import flags

from meta_impala.config import FIELDS, allowed_range, field_type


class _IntegerOrAuto(flags.IntegerParser):
    """A whole number, or auto (None: what `config.resolve` chooses)."""

    def parse(self, argument: Any) -> int | None:
        return None if argument == "auto" else super().parse(argument)


def define_config_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """One absl flag per field of `Config`; its help gives unit, source and allowed values.

    Args:
      flag_values: where; the flags of the command, if not given.
    """
    for name, field in FIELDS.items():
        metadata = field.metadata
        kind, _ = field_type(field)
        details = [metadata["help"]]
        if metadata["unit"]:
            details.append(f"Unit: {metadata['unit']}.")
        if metadata["choices"]:
            details.append(f"Allowed: {' | '.join(metadata['choices'])}.")
        elif metadata["low"] is not None or metadata["high"] is not None:
            details.append(f"Allowed: {allowed_range(metadata)}.")
        if metadata["source"]:
            details.append(f"Source: {metadata['source']}.")
        define = {
            bool: flags.DEFINE_bool,
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
            str: flags.DEFINE_string,
        }[kind]
        if metadata["auto"]:
            flags.DEFINE(
                _IntegerOrAuto(),
                name,
                "auto" if field.default is None else field.default,
                " ".join(details),
                flag_values=flag_values,
                serializer=flags.ArgumentSerializer(),
            )
            continue
        define(name, field.default, " ".join(details), flag_values=flag_values)


def given_config_flags() -> dict[str, Any]:
    """The config flags that the user gave (on the command line or in a flag file)."""
    return {name: flags.FLAGS[name].value for name in FIELDS if flags.FLAGS[name].present}
