"""The installed command `nao_jax`, with the drivers as sub-commands.

nao_jax --help
nao_jax search_cnn --preset=digits_nasbench201 --workdir=runs/digits
nao_jax completion bash

It imports nothing slow; a driver runs as `python -m` runs it.
"""

import importlib
import os
import pathlib
import runpy
import sys

from . import guard

# In the order of --help.
DRIVERS = (
  *("search_cnn", "search_rnn", "watch", "report", "describe"),
  *("train_cnn", "train_rnn", "evaluate_cnn"),
  *("prepare_images", "prepare_table"),
  *("compare_strategies", "train_controller"),
)
SHELLS = ("bash", "zsh")


def main() -> None:
  """Runs the sub-command that the first argument names."""
  guard.set_up()
  name, *arguments = sys.argv[1:] or ["--help"]
  if name in DRIVERS:
    sys.argv = [f"nao_jax {name}", *arguments]
    runpy.run_module(
      f"{__package__}.{name}", run_name="__main__", alter_sys=True
    )
  elif name in ("--help", "-h", "help"):
    _print(_help())
  elif name == "--version":
    _print(importlib.import_module("nao_jax").__version__)
  elif name == "completion":
    _complete(arguments)
  else:
    guard.end_with(
      f"{name}: no sub-command; allowed: {', '.join(DRIVERS)}, completion "
      "(nao_jax --help describes them)"
    )


def about(name: str) -> str:
  """Returns the first line of a driver's docstring, without importing it."""
  path = pathlib.Path(__file__).with_name(f"{name}.py")
  with path.open(encoding="utf-8") as source:
    return source.readline().strip('".\n')


def _help() -> str:
  width = max(map(len, DRIVERS))
  return "\n".join(
    [
      "Neural Architecture Optimization in JAX.",
      "",
      "nao_jax COMMAND --flag=value ..",
      "",
      *(f"  {name:{width}}  {about(name)}" for name in DRIVERS),
      f"  {'completion':{width}}  Prints what completes flags in a shell:"
      f" {' or '.join(SHELLS)}",
      "",
      "nao_jax COMMAND --help shows its flags, --helpfull every setting.",
    ]
  )


def _complete(arguments: list[str]) -> None:
  if len(arguments) != 1 or arguments[0] not in SHELLS:
    guard.end_with(
      f"completion {' '.join(arguments)}: name one shell, {' or '.join(SHELLS)}"
    )
  # It imports every driver.
  completion = importlib.import_module(".completion", __package__)
  _print(completion.script(arguments[0], {x: about(x) for x in DRIVERS}))


def _print(text: str) -> None:
  """Prints a text; a reader such as `head` may have enough of it."""
  try:
    print(text, flush=True)
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
