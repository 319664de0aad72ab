"""Drivers and flags that make them short, to be killed by `tests.soak`."""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
import random
import zipfile

from tests import tiny_images

_EARLIER = pathlib.Path(__file__).parent / "earlier"

_SEARCH = {
  "seed": 3,
  "pool_size": 8,
  "rounds": 2,
  "new_per_round": 3,
  "random_per_round": 1,
  "checkpoint_steps": 1,
  "devices": 1,
}
_CONTROLLER = {
  "controller_embedding": 4,
  "controller_hidden": 8,
  "controller_mlp_layers": 1,
}
_NAO = _CONTROLLER | {
  "strategy": "nao",
  "top_k": 3,
  "max_step_size": 3,
  "held_out": 0.25,
  "controller_epochs": 10,
}
_PLUS = _CONTROLLER | {
  "strategy": "nao_plus",
  "plus_members": 2,
  "plus_pretraining": 20,
  "plus_steps": 5,
  "plus_seeds": 3,
}
_IMAGES = {
  "preset": "digits",
  "channels": 2,
  "batch": 32,
  "epochs": 3,
}
_LANGUAGE = {
  "nodes": 3,
  "width": 6,
  "batch": 4,
  "bptt": 5,
}
_FINAL = {
  "finalists": 1,
  "finalist_epochs": 1,
  "final_cells": 1,
  "final_repeats": 1,
  "final_epochs": 1,
}
# Finalists and the comparison train in one program.
_IMAGE_FINAL = _FINAL | {
  f"{part}_{name}": value
  for name, value in {"batch": 32, "channels": 2, "cells_per_stage": 1}.items()
  for part in ("finalist", "final")
}
_IMAGE_FINAL |= {
  "finalist_drop_path_keep": 1.0,
  "finalist_dropout": 0.0,
  "finalist_auxiliary": False,
}


@dataclasses.dataclass(frozen=True)
class Subject:
  """A driver and its flags, which make it short.

  Attributes:
    driver: its name.
    flags: of its runs, but for the place.
    place: the flag that says where a run writes.
    file: name of the file there; none where a run has a folder.
    refusal: line of a run that is refused, as one before has done the work.
  """

  driver: str
  flags: Mapping
  place: str = "workdir"
  file: str = ""
  refusal: str = ""

  def arguments(self, run: pathlib.Path) -> list[str]:
    """Returns the driver's command line for a run in a folder."""
    given = {**self.flags, self.place: run / self.file}
    return [f"--{name}={value}" for name, value in given.items()]


def subjects(folder: pathlib.Path) -> dict[str, Subject]:
  """Returns the drivers, each a few seconds long once it is compiled.

  Args:
    folder: where the data go that are trained on.
  """
  return _files(folder) | _texts(folder) | _images(folder)


def _images(folder: pathlib.Path) -> dict[str, Subject]:
  images = _IMAGES | {"data_dir": tiny_images.few_digits(folder / "data")}
  search = _SEARCH | images | _IMAGE_FINAL | {"nodes": 2}
  scratch = {"preset": "digits_scratch", "cells_per_stage": 1, "extend": True}
  streamed = {"input": "stream", "stream_size": 8, "stream_workers": 0}
  return {
    "search_cnn, shared": Subject("search_cnn", search | _NAO),
    "search_cnn, scratch": Subject("search_cnn", search | _NAO | scratch),
    "search_cnn, streamed": Subject(
      "search_cnn",
      search | streamed | {"strategy": "random", "random_per_round": 0},
    ),
    "train_cnn": Subject(
      "train_cnn",
      images
      | {
        "arch": "0 0 1 4 2 2 0 4 | 0 4 1 2 2 3 1 4",
        "checkpoint_steps": 2,
        "devices": 1,
      },
    ),
  }


def _texts(folder: pathlib.Path) -> dict[str, Subject]:
  text = folder / "text"
  text.mkdir(exist_ok=True)
  rng = random.Random(0)
  for part, words in (("train", 240), ("valid", 60), ("test", 60)):
    line = " ".join(f"w{rng.randrange(9)}" for _ in range(words))
    (text / f"a.{part}.txt").write_text(line + "\n")
  language = _LANGUAGE | {"text": text}
  search = _SEARCH | language | _FINAL | {"epochs": 3}
  scratch = {"evaluator": "scratch", "extend": True, "random_per_round": 0}
  train = {
    "preset": "ptb",
    "text": text,
    "arch": "0 0 1 1 0 3",
    "width": 6,
    "batch": 4,
    "bptt": 5,
    "epochs": 6,
    "eval_batch": 4,
    "checkpoint_steps": 1,
    "devices": 1,
  }
  return {
    "search_rnn, shared": Subject("search_rnn", search | _PLUS),
    "search_rnn, scratch": Subject("search_rnn", search | _NAO | scratch),
    "train_rnn": Subject("train_rnn", train),
    "train_rnn, compiled each time": Subject(
      "train_rnn", train | {"compilation_cache": "off"}
    ),
  }


def _files(folder: pathlib.Path) -> dict[str, Subject]:
  """Returns drivers that write files and no workdir."""
  table = folder / "table.csv"
  header = {"slots": {"a": [0, 1, 2], "b": [0, 1, 2], "c": [0, 1]}}
  header |= {"space": "small", "columns": {"accuracy": {"unit": "%"}}}
  rows = [f"{n // 6},{n // 2 % 3},{n % 2},{10 * n % 19}" for n in range(18)]
  lines = [f"# {json.dumps(header)}", "a,b,c,accuracy", *rows]
  table.write_text("\n".join(lines) + "\n")
  pixels = tiny_images.save_npz(folder / "images.npz", tiny_images.arrays())
  left = folder / "left"
  with zipfile.ZipFile(max(_EARLIER.glob("*.zip"))) as archive:
    archive.extractall(left)
  searches = ("search_rnn_scratch", "search_rnn_scratch_stopped")
  compared = {
    "table": table,
    "signal": "accuracy",
    "report": "accuracy",
    "strategies": "random,evolution,local",
    "budget": 12,
    "trials": 3,
    "threads": 1,
  }
  return {
    "compare_strategies": Subject(
      "compare_strategies", compared, "json", "curves.json"
    ),
    "prepare_images": Subject(
      "prepare_images",
      {"npz": pixels, "name": "tiny"},
      "data_dir",
      refusal="exists and is never overwritten",
    ),
    "prepare_table": Subject(
      "prepare_table", {"table": table}, "output", "table.npz"
    ),
    "evaluate_cnn": Subject(
      "evaluate_cnn",
      {"workdir": left / "train_cnn"},
      "export",
      "network.jax",
      refusal="exists; give another name",
    ),
    "report": Subject(
      "report",
      {"compare": ",".join(str(left / name) for name in searches)},
      "output",
      "page.html",
    ),
  }
