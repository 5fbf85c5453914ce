"""`meta-impala COMMAND`: every command of the program under one name.

meta-impala train --preset=catch --logdir=runs/catch
meta-impala train --help
eval "$(meta-impala completion bash)"
"""

from __future__ import annotations

import importlib
import sys
from typing import NamedTuple

from absl import flags

from meta_impala import command, usage
from meta_impala.config.fields import nearest
from meta_impala.errors import UserError
from meta_impala.system.streams import prepare_streams


class Command(NamedTuple):
    """One command: the module with its `define_flags`, `main` and, perhaps, `POSITIONAL`."""

    module: str
    summary: str


# A new command is one line here.
COMMANDS = {
    "train": Command("meta_impala.train", "train an agent, or continue a run"),
    "evaluate": Command("meta_impala.evaluate", "play full games with a trained agent"),
    "watch": Command("meta_impala.watch", "see the newest checkpoint play, live"),
    "plot": Command("meta_impala.plot", "draw return, gamma and lambda of runs"),
    "report": Command("meta_impala.report", "show what runs did, as one HTML file"),
    "doctor": Command("meta_impala.doctor", "say why a run does not learn"),
    "explain": Command("meta_impala.explain", "explain the direction of the meta-gradient"),
    "export": Command("meta_impala.export", "write the agent of a run as one small file"),
    "compare": Command("meta_impala.compare", "compare evaluated runs with published scores"),
    "suite": Command("meta_impala.run_suite", "run games x seeds x variants, and report"),
    "population": Command("meta_impala.population", "population based training of plain IMPALA"),
    "illustrative": Command("meta_impala.illustrative", "the paper's two illustrative examples"),
    "record": Command("meta_impala.record_starts", "record starts for evaluate --starts=human"),
    "benchmark": Command("meta_impala.benchmark", "measure what training costs on this machine"),
    "completion": Command("meta_impala.completion", "print completion for bash or zsh"),
}


def overview() -> str:
    """The text of `meta-impala --help`, as wide as the terminal."""
    width = max(map(len, COMMANDS))
    lines = [*usage.filled("usage: meta-impala COMMAND [--flag=value ...]"), ""]
    lines += usage.filled(
        "Meta-gradient IMPALA: an actor-critic that learns its own discount and bootstrapping.", ""
    )
    lines.append("")
    for name, entry in COMMANDS.items():
        lines += usage.filled(f"  {name:<{width}}  {entry.summary}", " " * (width + 4))
    lines.append("")
    lines += usage.filled("meta-impala COMMAND --help shows the flags of a command.", "")
    lines += usage.filled("First steps: meta-impala train --preset=catch --logdir=runs/catch", "  ")
    return "\n".join(lines)


def main() -> None:
    """Runs the command that the first argument names."""
    prepare_streams()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "-?", "--help", "-help", "help", "--helpfull"):
        print(overview())
        sys.exit(0)
    if name in ("--version", "-version"):
        print(usage.version())
        sys.exit(0)
    if name not in COMMANDS:
        reason = "must be a command" if name.startswith("-") else "there is no such command"
        command.fail(
            str(UserError(f"{name}: {reason}{nearest(name, COMMANDS)}: {', '.join(COMMANDS)}"))
        )
    module = importlib.import_module(COMMANDS[name].module)
    sys.argv = [f"meta-impala {name}", *arguments]
    module.define_flags()
    command.run(module.main, getattr(module, "POSITIONAL", ""))


def flags_of(name: str) -> list[flags.Flag]:
    """The flags of a command; leaves the flags of this process as they were.

    Args:
      name: of `COMMANDS`.
    """
    before = set(flags.FLAGS)
    importlib.import_module(COMMANDS[name].module).define_flags()
    added = [flags.FLAGS[flag] for flag in set(flags.FLAGS) - before]
    added.sort(key=lambda flag: flag.name)
    for flag in added:
        delattr(flags.FLAGS, flag.name)
    return added


if __name__ == "__main__":
    main()
