"""Scripts with which shells complete sampan's command lines, made from what the verbs declare.

A script is static: it knows verbs, options, the words that an option takes, and where a file or a folder is meant; it never
starts Python while somebody types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.options import Option, lora, model_path, options_of, path

_FILES = (path, model_path, lora, Path)


@dataclass(frozen=True)
class CompletedOption:
    """An option, or a positional argument, as a shell completes it.

    Args:
        name: As it is typed; "" of a positional argument.
        choices: Words that its value can be; empty for any.
        takes: "nothing", "word" or "file".
    """

    name: str
    help: str
    choices: tuple[str, ...]
    takes: str


def completed_options(arguments: type) -> list[CompletedOption]:
    """Return the options and positional arguments of a verb's dataclass."""
    return [_completed(field, option) for field, _, option in options_of(arguments)]


def script(shell: str, verbs: Mapping[str, type], about: Mapping[str, str]) -> str:
    """Return the completion script of a shell.

    Args:
        shell: bash, zsh or fish.
        verbs: Name of each verb, as "data emoji", to the dataclass of its options.
        about: A line on each verb, and on each first word that has verbs below it.
    """
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](verbs, about)


def _completed(field: str, option: Option) -> CompletedOption:
    name = "" if option.name == "" else option.name or f"--{field.replace('_', '-')}"
    takes = "nothing" if option.action == "store_true" else "file" if option.read in _FILES else "word"
    text = option.help.replace("%(choices)s", ", ".join(option.choices or ())).replace("%%", "%")
    return CompletedOption(name, text, option.choices or (), takes)


def _below(verbs: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what can stand first, and behind each group's name."""
    words: dict[str, list[str]] = {"": []}
    for name in verbs:
        group, _, verb = name.rpartition(" ")
        if group and group not in words:
            words[""].append(group)
            words[group] = []
        words[group].append(verb)
    return words


def _bash(verbs: Mapping[str, type], about: Mapping[str, str]) -> str:
    below = _below(verbs)
    cases, values = [], []
    for name, arguments in verbs.items():
        options = completed_options(arguments)
        names = " ".join(option.name for option in options if option.name)
        positional = [option for option in options if not option.name]
        words = " ".join(word for option in positional for word in option.choices)
        cases.append(f'    "{name}") options="{names} --help" words="{words}" ;;')
        for option in options:
            if option.name and option.takes != "nothing":
                reply = f'words="{" ".join(option.choices)}"' if option.choices else f"takes={option.takes}"
                values.append(f'    "{name} {option.name}") {reply} ;;')
    listed = "".join(_bash_group(group, below[group]) for group in below if group)
    value_cases, verb_cases = "\n".join(values), "\n".join(cases)
    return f"""# completion of sampan for bash; written by `sampan completion bash`
_sampan() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
  local verb=${{COMP_WORDS[1]}} options="" words="" takes="" at=1
  COMPREPLY=()
  if (( COMP_CWORD == 1 )); then
    COMPREPLY=($(compgen -W "{" ".join(below[""])} --help --version" -- "$current")); return
  fi
  case "$verb" in
{listed}  esac
  case "$verb $before" in
{value_cases}
  esac
  if [[ -n $words ]]; then COMPREPLY=($(compgen -W "$words" -- "$current")); return; fi
  if [[ $takes == file ]]; then compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$current")); return; fi
  if [[ $takes == word ]]; then return; fi
  case "$verb" in
{verb_cases}
  esac
  if [[ $current == -* ]]; then COMPREPLY=($(compgen -W "$options" -- "$current")); return; fi
  if [[ -n $words ]]; then COMPREPLY=($(compgen -W "$words" -- "$current")); return; fi
  compopt -o filenames 2>/dev/null
  COMPREPLY=($(compgen -f -- "$current"))
}}
complete -F _sampan sampan
"""


def _bash_group(group: str, words: Sequence[str]) -> str:
    return f"""    {group})
      if (( COMP_CWORD == 2 )); then COMPREPLY=($(compgen -W "{" ".join(words)} --help" -- "$current")); return; fi
      verb="$verb ${{COMP_WORDS[2]}}" ;;
"""


def _zsh(verbs: Mapping[str, type], about: Mapping[str, str]) -> str:
    below = _below(verbs)
    lines = ["#compdef sampan", "# completion of sampan for zsh; written by `sampan completion zsh`", ""]
    for name, arguments in verbs.items():
        specs = [_zsh_spec(option) for option in completed_options(arguments)]
        body = " \\\n    ".join(["_arguments -S", *specs, "'--help[show help]'"])
        lines += [f"_sampan_{name.replace(' ', '_')}() {{", f"  {body}", "}", ""]
    for group, words in below.items():
        lines += _zsh_group(group, words, about)
    # a file in $fpath is the body of the function; where it is sourced, it says what it completes
    loaded = 'if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _sampan "$@"; else compdef _sampan sampan; fi'
    return "\n".join([*lines, loaded, ""])


def _zsh_group(group: str, words: Sequence[str], about: Mapping[str, str]) -> list[str]:
    function = f"_sampan_{group}" if group else "_sampan"
    listed = [_zsh_quoted(f"{word}:{about[f'{group} {word}'.strip()].replace(':', ' ')}") for word in words]
    return [
        f"{function}() {{",
        "  local -a verbs",
        f"  verbs=({' '.join(listed)})",
        "  if (( CURRENT == 2 )); then _describe verb verbs; return; fi",
        "  local verb=$words[2]",
        "  shift words; (( CURRENT-- ))",
        f"  (( $+functions[{function}_$verb] )) && {function}_$verb",
        "}",
        "",
    ]


def _zsh_spec(option: CompletedOption) -> str:
    action = f"({' '.join(option.choices)})" if option.choices else "_files" if option.takes == "file" else ""
    what = re.sub(r"[\[\]:]", " ", option.help)
    if not option.name:
        return _zsh_quoted(f"*:{what}:{action or '_files'}")
    value = "" if option.takes == "nothing" else f":value:{action}"
    return _zsh_quoted(f"*{option.name}[{what}]{value}")


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(verbs: Mapping[str, type], about: Mapping[str, str]) -> str:
    below = _below(verbs)
    lines = ["# completion of sampan for fish; written by `sampan completion fish`", "complete -c sampan -f"]
    for group, words in below.items():
        seen = f"__fish_seen_subcommand_from {group}; and not __fish_seen_subcommand_from {' '.join(words)}"
        when = seen if group else "__fish_use_subcommand"
        for word in words:
            text = _fish_quoted(about[f"{group} {word}".strip()])
            lines.append(f"complete -c sampan -n {_fish_quoted(when)} -a {word} -d {text}")
    for name, arguments in verbs.items():
        when = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in name.split())
        if " " not in name:  # `data` is a word of no verb, but a verb's name may be one below a group
            when = f"test (count (commandline -opc)) -ge 2; and test (commandline -opc)[2] = {name}"
        for option in completed_options(arguments):
            lines.append(f"complete -c sampan -n {_fish_quoted(when)} {_fish_option(option)}".rstrip())
    return "\n".join([*lines, ""])


def _fish_option(option: CompletedOption) -> str:
    choices = f" -xa {_fish_quoted(' '.join(option.choices))}" if option.choices else ""
    if not option.name:
        return choices.strip() or "-F"
    value = choices or {"nothing": "", "word": " -x", "file": " -rF"}[option.takes]
    dashes = "-l" if option.name.startswith("--") else "-s"
    return f"{dashes} {option.name.lstrip('-')}{value} -d {_fish_quoted(option.help)}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
