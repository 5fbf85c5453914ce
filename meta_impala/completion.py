"""Prints shell completion of commands, flags, their values, and files.

    eval "$(meta-impala completion bash)"          # in ~/.bashrc
    eval "$(meta-impala completion zsh)"           # in ~/.zshrc

The text is made from the flags of this version; nothing is run while you type.
"""

from __future__ import annotations

from absl import flags

from meta_impala import command
from meta_impala.config import FIELDS, presets
from meta_impala.errors import UserError

POSITIONAL = "bash | zsh"

_SHELLS = ("bash", "zsh")

_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"

# `=` separates words in bash: "--network=d" arrives as three of them.
_BASH = """\
_meta_impala() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" flag="" words=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=( $(compgen -W "{commands}" -- "$word") )
        return
    fi
    if [ "$word" = "=" ]; then flag="$before"; word=""
    elif [ "$before" = "=" ]; then flag="${{COMP_WORDS[COMP_CWORD-2]}}"
    elif [[ "$word" == --*=* ]]; then flag="${{word%%=*}}"; word="${{word#*=}}"
    fi
    if [ -n "$flag" ]; then
        case "${{COMP_WORDS[1]}} $flag" in
{values}
        esac
        if [ -n "$words" ]; then COMPREPLY=( $(compgen -W "$words" -- "$word") )
        else COMPREPLY=( $(compgen -f -- "$word") )
        fi
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{flags}
    esac
    case "$word" in
        -*) COMPREPLY=( $(compgen -W "$words" -- "$word") )
            [[ "${{COMPREPLY[*]}}" == *= ]] && compopt -o nospace 2>/dev/null ;;
        *) COMPREPLY=( $(compgen -f -- "$word") ) ;;
    esac
}}
complete -o filenames -F _meta_impala meta-impala
"""


def define_flags() -> None:
    """This command has none."""


def values_of(flag: flags.Flag) -> tuple[str, ...]:
    """The values that a flag may have, if they can be listed."""
    if flag.name == "preset":
        return tuple(presets.names())
    if isinstance(flag.parser, flags.EnumParser):
        return tuple(flag.parser.enum_values)
    if flag.name in FIELDS:
        return tuple(FIELDS[flag.name].metadata["choices"])
    return ()


def script(shell: str) -> str:
    """The completion script.

    Args:
      shell: `bash` or `zsh`.
    """
    from meta_impala import cli  # which has this command in its table

    flags_lines, values_lines = [], []
    for name in cli.COMMANDS:
        found = cli.flags_of(name)
        words = ["--help", "--helpfull"]
        for flag in found:
            words += [f"--{flag.name}", f"--no{flag.name}"] if flag.boolean else [f"--{flag.name}="]
            if values := values_of(flag):
                listed = " ".join(values)
                values_lines.append(f'            "{name} --{flag.name}") words="{listed}" ;;')
        flags_lines.append(f'        {name}) words="{" ".join(words)}" ;;')
    text = _BASH.format(
        commands=" ".join(cli.COMMANDS),
        values="\n".join(values_lines),
        flags="\n".join(flags_lines),
    )
    return (_ZSH if shell == "zsh" else "") + text


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    if len(arguments) != 1 or arguments[0] not in _SHELLS:
        raise UserError(f"give one of {', '.join(_SHELLS)}")
    print(script(arguments[0]), end="")
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
