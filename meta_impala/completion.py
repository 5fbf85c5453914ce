"""Prints shell completion of commands, flags, their values, and files.

    eval "$(meta-impala completion bash)"          # in ~/.bashrc
    eval "$(meta-impala completion zsh)"           # in ~/.zshrc

The text is made from the flags of this version; nothing is run while you type.
"""

from __future__ import annotations

from absl import flags

from meta_impala import command
from meta_impala.config import FIELDS, presets
from meta_impala.config.hyper_parameters import SETTINGS_OF_NAMES, TABLE
from meta_impala.errors import UserError
from meta_impala.experiments import suite as suite_lib

POSITIONAL = "bash | zsh"

# `=` separates words in bash: "--network=d" arrives as three of them.
_BASH = """\
_meta_impala() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local flag="" listed=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=( $(compgen -W "{commands}" -- "$word") )
        return
    fi
    if [ "$word" = "=" ]; then flag="$before"; word=""
    elif [ "$before" = "=" ]; then flag="${{COMP_WORDS[COMP_CWORD-2]}}"
    elif [[ "$word" == --*=* ]]; then flag="${{word%%=*}}"; word="${{word#*=}}"
    elif [[ "$before" == --* && "$word" != -* ]]; then flag="$before"
    fi
    case "${{COMP_WORDS[1]}} $flag" in
{values}
    esac
    case "$flag:$word" in
        :-*) case "${{COMP_WORDS[1]}}" in
{flags}
            esac
            COMPREPLY=( $(compgen -W "$listed" -- "$word") )
            [[ "${{COMPREPLY[*]}}" == *= ]] && compopt -o nospace 2>/dev/null ;;
        *) COMPREPLY=( $(compgen -W "$listed" -- "$word") )
            [ -n "$listed" ] && [ -n "$flag" ] || COMPREPLY+=( $(compgen -f -- "$word") ) ;;
    esac
}}
complete -o filenames -F _meta_impala meta-impala
"""

_ZSH = """\
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit; }}
_meta_impala() {{
    local word="${{words[CURRENT]}}" before="${{words[CURRENT-1]}}" flag="" listed=""
    if (( CURRENT == 2 )); then
        compadd -- {commands}
        return
    fi
    if [[ "$word" == --*=* ]]; then flag="${{word%%=*}}"; compset -P '*='; word="${{word#*=}}"
    elif [[ "$before" == --* && "$word" != -* ]]; then flag="$before"
    fi
    case "${{words[2]}} $flag" in
{values}
    esac
    case "$flag:$word" in
        :-*) case "${{words[2]}}" in
{flags}
            esac
            compadd -S '' -- ${{(M)${{=listed}}:#*=}}
            compadd -- ${{${{=listed}}:#*=}} ;;
        *) compadd -- ${{=listed}}
            [[ -n "$listed" && -n "$flag" ]] || _files ;;
    esac
}}
compdef _meta_impala meta-impala
"""

_TEMPLATES = {"bash": _BASH, "zsh": _ZSH}


def define_flags() -> None:
    """This command has none."""


def values_of(flag: flags.Flag) -> tuple[str, ...]:
    """The values that a flag may have, if they can be listed."""
    if flag.name == "preset":
        return tuple(presets.names())
    if isinstance(flag.parser, flags.EnumParser):
        return tuple(flag.parser.enum_values)
    if flag.name in SETTINGS_OF_NAMES:
        return (*SETTINGS_OF_NAMES[flag.name], *TABLE)
    if flag.name in FIELDS:
        return tuple(FIELDS[flag.name].metadata["choices"])
    return ()


def _suites() -> list[str]:
    """The suites that come with the program, by name."""
    return sorted(path.stem for path in suite_lib.SUITES.glob("*.toml"))


def script(shell: str) -> str:
    """The completion script.

    Args:
      shell: `bash` or `zsh`.
    """
    from meta_impala import cli  # which has this command in its table

    flags_lines: list[str] = []
    values_lines: list[str] = []
    for name, positional in (("suite", _suites()), ("completion", list(_TEMPLATES))):
        values_lines.append(f'        "{name} ") listed="{" ".join(positional)}" ;;')
    for name in cli.COMMANDS:
        found = cli.flags_of(name)
        words = ["--help", "--helpfull", "--flagfile="]
        for flag in found:
            words += [f"--{flag.name}", f"--no{flag.name}"] if flag.boolean else [f"--{flag.name}="]
            if values := values_of(flag):
                listed = " ".join(values)
                values_lines.append(f'        "{name} --{flag.name}") listed="{listed}" ;;')
        flags_lines.append(f'            {name}) listed="{" ".join(words)}" ;;')
    return _TEMPLATES[shell].format(
        commands=" ".join(cli.COMMANDS),
        values="\n".join(values_lines),
        flags="\n".join(flags_lines),
    )


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    if len(arguments) != 1 or arguments[0] not in _TEMPLATES:
        raise UserError(f"give one of {' or '.join(_TEMPLATES)}")
    print(script(arguments[0]), end="")
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
