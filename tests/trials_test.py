import contextlib
import dataclasses
import sqlite3

import numpy as np
import pytest

from nao_jax.data.digest import Digest
from nao_jax.data.images import ImageData
from nao_jax.data.text import Corpus
from nao_jax.errors import UserError
from nao_jax.runs.trials import Trial, Trials, digest
from nao_jax.tasks import image_presets, text_presets
from nao_jax.tasks import images as image_task
from nao_jax.tasks import texts as text_task

PROTOCOL = {"epochs": 3, "dataset": "digits", "mean": [0.5]}


@pytest.fixture
def file(tmp_path):
  return tmp_path / "folder" / "trials.sqlite"


def test_what_was_added_is_found_again(file):
  trial = Trial(0.75, (0.5, 0.75))
  Trials(file, "a", PROTOCOL).add([1, 2, 3], trial)
  again = Trials(file, "a", dict(reversed(PROTOCOL.items())))
  assert again.get([1, 2, 3]) == trial
  assert again.get([1, 2, 4]) is None


def test_another_space_or_protocol_is_another_trial(file):
  Trials(file, "a", PROTOCOL).add([1], Trial(0.5, (0.5,)))
  assert Trials(file, "b", PROTOCOL).get([1]) is None
  assert Trials(file, "a", PROTOCOL | {"epochs": 4}).get([1]) is None


def test_the_first_of_two_equal_trials_stays(file):
  trials = Trials(file, "a", PROTOCOL)
  trials.add([1], Trial(0.5, (0.5,)))
  trials.add([1], Trial(0.6, (0.6,)))
  assert trials.get([1]).score == 0.5


def test_a_failed_trial_is_marked(file):
  trials = Trials(file, "a", PROTOCOL)
  trials.add([1], Trial(None, (0.1,)))
  assert trials.get([1]) == Trial(None, (0.1,))
  with contextlib.closing(sqlite3.connect(file)) as database:
    rows = database.execute("select score, failed from trials").fetchall()
  assert rows == [(None, 1)]


def test_a_file_of_something_else_is_refused_and_kept(tmp_path):
  file = tmp_path / "notes.txt"
  file.write_text("precious " * 200)
  with pytest.raises(UserError, match=r"`trials=.*notes.txt`: not a file of"):
    Trials(file, "a", PROTOCOL)
  assert file.read_text().startswith("precious")


def test_a_digest_tells_values_apart_but_not_orders():
  assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
  assert digest({"a": 1}) != digest({"a": 1.5})


def _changed(value):
  """Another value of the same type."""
  if isinstance(value, bool):
    return not value
  if isinstance(value, str):
    return f"{value}x"
  return (*value, 1) if isinstance(value, tuple) else value + 1


def _variants(config, parts, names):
  """{setting: the settings with another value of it}; `parts` whole."""
  for name in names:
    value = _changed(getattr(config, name))
    yield name, dataclasses.replace(config, **{name: value})
  for part in parts:
    inner = getattr(config, part)
    for field in dataclasses.fields(inner):
      value = _changed(getattr(inner, field.name))
      changed = dataclasses.replace(inner, **{field.name: value})
      yield (
        f"{part}.{field.name}",
        dataclasses.replace(config, **{part: changed}),
      )


def _image_protocols():
  """Yields the protocol of a trial of images, and one for each change."""
  config = image_presets.PRESETS["digits"]
  data = ImageData("a", 2, None, None, None, None, None, Digest("a", "b"))
  yield "", image_task._protocol(config, data)
  other = dataclasses.replace(data, digest=Digest("c", "b"))
  yield "data", image_task._protocol(config, other)
  parts = ("network", "train", "sgd", "augment")
  names = ("seed", "prune", "validation_fraction")
  for name, changed in _variants(config, parts, names):
    yield name, image_task._protocol(changed, data)


def _text_protocols():
  """Yields the protocol of a trial of text, and one for each change."""
  config = text_presets.PRESETS["demo"]
  corpus, other = (
    Corpus("a", tuple(words), *3 * [np.zeros(9, np.int32)])
    for words in ("ab", "ac")
  )
  yield "", text_task._protocol(config, corpus)
  yield "text", text_task._protocol(config, other)
  names = ("seed", "prune", "score_tokens")
  for name, changed in _variants(config, ("network", "train"), names):
    yield name, text_task._protocol(changed, corpus)


@pytest.mark.parametrize("protocols", [_image_protocols, _text_protocols])
def test_whatever_decides_a_score_makes_it_another_trial(protocols, file):
  (_, protocol), *variants = protocols()
  assert len(variants) > 10
  trials = Trials(file, "a", protocol)
  trials.add([1], Trial(0.5, (0.5,)))
  found = {name: Trials(file, "a", other).get([1]) for name, other in variants}
  assert {name for name, trial in found.items() if trial is not None} == set()
  assert Trials(file, "a", protocol).get([1]) is not None


def test_the_test_part_and_the_name_of_data_decide_no_score():
  config = image_presets.PRESETS["digits"]
  first, other = (
    ImageData(name, 2, None, None, None, None, None, Digest("a", test))
    for name, test in ("ab", "cd")
  )
  renamed = dataclasses.replace(config, dataset="renamed")
  protocols = (
    image_task._protocol(*it) for it in ((config, first), (renamed, other))
  )
  assert len({digest(protocol) for protocol in protocols}) == 1


def test_every_entry_of_a_protocol_counts_however_long_it_is():
  protocol = {f"entry {n:02}": {"value": n, "list": [n]} for n in range(50)}
  digests = {digest(protocol)}
  for name, entry in protocol.items():
    for key, value in (("value", -1), ("list", [-1]), ("more", 0)):
      digests.add(digest(protocol | {name: entry | {key: value}}))
    digests.add(digest({k: v for k, v in protocol.items() if k != name}))
  assert len(digests) == 1 + 4 * len(protocol)
