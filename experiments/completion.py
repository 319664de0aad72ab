"""Scripts that complete the command `nao_jax` in a shell.

They hold the names of all flags, so that nothing is imported while a user
types.
"""

from collections.abc import Iterable, Iterator
import importlib
import re
import shlex
from typing import NamedTuple

from absl import app, flags

from . import driver as _driver  # noqa: F401, it defines flags of all drivers

_HELP = ("help", "helpfull")
_OF_ALL = (*_HELP, "compilation_cache", "verbosity")

_BASH = """\
# Completes nao_jax in bash; nao_jax completion bash prints it.
_nao_jax() {
  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"
  local flag="" words=""
  # bash takes "=" for a word.
  if [[ $word == "=" ]]; then
    flag=$before word=""
  elif [[ $before == "=" ]]; then
    flag="${COMP_WORDS[COMP_CWORD-2]}"
  fi
  if ((COMP_CWORD == 1)); then
    words=@names@
  elif [[ -n $flag ]]; then
    case "${COMP_WORDS[1]} $flag" in
@values@
      *)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    esac
  else
    case "${COMP_WORDS[1]}" in
@flags@
    esac
    compopt -o nospace
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} != *= ]]; then
    compopt +o nospace
  fi
}
complete -F _nao_jax nao_jax
"""

_ZSH = """\
#compdef nao_jax
# Completes nao_jax in zsh; nao_jax completion zsh prints it.
_nao_jax() {
  local -a drivers
  drivers=(
@names@
  )
  if ((CURRENT == 2)); then
    _describe command drivers
    return
  fi
  words=("${(@)words[2,-1]}")
  ((CURRENT--))
  case $words[1] in
@flags@
  esac
}
if [[ $funcstack[1] == _nao_jax ]]; then
  _nao_jax "$@"
else
  compdef _nao_jax nao_jax
fi
"""


class Flag(NamedTuple):
  """Flag of a driver.

  Attributes:
    words: the flag as it is typed, in one form or two.
    help: its description.
    repeats: whether it may be given several times.
    values: words to offer as its value; files if empty.
  """

  words: tuple[str, ...]
  help: str
  repeats: bool
  values: tuple[str, ...]


def script(shell: str, drivers: dict[str, str]) -> str:
  """Returns the script for a shell, `bash` or `zsh`."""
  known = {name: [*flags_of(name)] for name in drivers}
  return (_bash if shell == "bash" else _zsh)(drivers, known)


def flags_of(name: str) -> Iterator[Flag]:
  """Imports a driver and yields its flags, which it then forgets.

  Drivers define flags of the same name.
  """
  app.define_help_flags()
  everywhere = {*flags.FLAGS}
  importlib.import_module(f".{name}", __package__)
  own = {*flags.FLAGS} - everywhere
  for flag in sorted({*own, *_OF_ALL}):
    yield _described(flags.FLAGS[flag])
  for flag in own:
    delattr(flags.FLAGS, flag)


def _described(flag: flags.Flag) -> Flag:
  typed = (f"--{flag.name}=",)
  if flag.boolean:
    typed = f"--{flag.name}", f"--no{flag.name}"
    typed = typed[:1] if flag.name in _HELP else typed
  values = getattr(flag.parser, "enum_values", None) or ()
  text = " ".join((flag.help or "").split())
  return Flag(typed, text, isinstance(flag, flags.MultiFlag), tuple(values))


def _bash(drivers: dict[str, str], known: dict[str, list[Flag]]) -> str:
  values = [
    f"      {shlex.quote(f'{name} {flag.words[0][:-1]}')})"
    f" words={shlex.quote(' '.join(flag.values))} ;;"
    for name, found in known.items()
    for flag in found
    if flag.values
  ]
  typed = {
    name: " ".join(word for flag in found for word in flag.words)
    for name, found in known.items()
  } | {"completion": "bash zsh"}
  return _filled(
    _BASH,
    names=shlex.quote(" ".join([*drivers, "completion", "--help"])),
    values="\n".join(values),
    flags="\n".join(
      f"      {name}) words={shlex.quote(words)} ;;"
      for name, words in typed.items()
    ),
  )


def _zsh(drivers: dict[str, str], known: dict[str, list[Flag]]) -> str:
  described = drivers | {"completion": "Prints what completes flags in a shell"}
  cases = {
    name: [_zsh_word(flag, word) for flag in found for word in flag.words]
    for name, found in known.items()
  } | {"completion": [shlex.quote("1:shell:(bash zsh)")]}
  return _filled(
    _ZSH,
    names="\n".join(
      f"    {shlex.quote(f'{name}:{_escaped(text)}')}"
      for name, text in described.items()
    ),
    flags="\n".join(
      f"    {name}) _arguments {_continued(words)} ;;"
      for name, words in cases.items()
    ),
  )


def _zsh_word(flag: Flag, word: str) -> str:
  """Returns a specification of zsh's _arguments."""
  value = ""
  if word.endswith("="):
    offered = " ".join(map(_escaped, flag.values))
    value = f":value:({offered})" if offered else ":value:_files"
  repeats = "*" * flag.repeats
  return shlex.quote(f"{repeats}{word}[{_escaped(flag.help)}]{value}")


def _escaped(text: str) -> str:
  return re.sub(r"([\\\[\]:()])", r"\\\1", text)


def _continued(words: Iterable[str]) -> str:
  return " ".join(f"\\\n      {word}" for word in words)


def _filled(template: str, **texts: str) -> str:
  for name, text in texts.items():
    template = template.replace(f"@{name}@", text)
  return template
