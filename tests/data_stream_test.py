import dataclasses
import io
import itertools
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from nao_jax.data import stream, transforms
from nao_jax.data.images import Examples
from nao_jax.errors import UserError
from tests import tiny_images
from tests.data_images_test import write_foreign

ROOT = pathlib.Path(__file__).parents[1]
TRAIN, TEST, BATCH = 11, 5, 4

# In this process, and so that colours tell which image it is.
PLAIN = stream.StreamConfig(
  size=4, brightness=0, contrast=0, saturation=0, hue=0, workers=0
)
CHANGING = stream.StreamConfig(size=6, workers=0)


def _shape(index):
  return 5 + 3 * index % 7, 4 + 5 * index % 11, 3


def _plain(index):
  """One colour, by which `_index` knows the image again."""
  return np.full(_shape(index), [20 * index, 255 - 20 * index, 7], np.uint8)


def _index(image):
  assert np.ptp(image, axis=(0, 1)).max() == 0
  return image[0, 0, 0] // 20


def _noise(index):
  shape = _shape(index)
  return np.random.RandomState(index).randint(0, 256, shape, np.uint8)


def _write(data_dir, image, format_):
  def part(count):
    return [
      (tiny_images.encode(image(index), format_), index % 2)
      for index in range(count)
    ]

  splits = {"train": part(TRAIN), "test": part(TEST)}
  write_foreign(data_dir, splits)


@pytest.fixture(scope="module")
def plain_dir(tmp_path_factory):
  root = tmp_path_factory.mktemp("plain")
  _write(root, _plain, "PNG")
  return root


@pytest.fixture(scope="module")
def noise_dir(tmp_path_factory):
  root = tmp_path_factory.mktemp("noise")
  _write(root, _noise, "JPEG")
  return root


def open_stream(data_dir, config, **kwargs):
  return stream.open_stream(
    "foreign", data_dir=data_dir, config=config, **kwargs
  )


def _with_workers(config, workers):
  return dataclasses.replace(config, workers=workers)


def _take(batches, count):
  taken = list(itertools.islice(batches, count))
  batches.close()
  return taken


def _assert_equal(batches, others):
  for batch, other in zip(batches, others, strict=True):
    np.testing.assert_array_equal(batch.images, other.images)
    np.testing.assert_array_equal(batch.labels, other.labels)


def _epochs(data_dir, count, seed=0):
  """The indices of the examples, [count, steps, BATCH]."""
  steps = TRAIN // BATCH
  batches = open_stream(data_dir, PLAIN).train_batches(BATCH, seed=seed)
  indices = [
    [_index(image) for image in batch.images]
    for batch in _take(batches, count * steps)
  ]
  return np.reshape(indices, (count, steps, BATCH))


def test_a_stream_says_what_is_in_it(plain_dir):
  data = open_stream(plain_dir, PLAIN)
  assert (data.name, data.classes) == ("foreign", 2)
  assert (data.train_examples, len(data.test)) == (TRAIN, TEST)
  assert data.image_shape == (4, 4, 3)
  assert data.mean.dtype == data.std.dtype == np.float32
  (batch,) = _take(data.train_batches(BATCH, seed=0), 1)
  assert batch.images.shape == (BATCH, *data.image_shape)
  assert batch.images.dtype == np.uint8
  assert batch.labels.shape == (BATCH,)
  assert batch.labels.dtype == np.int32


def test_an_epoch_has_no_example_twice_and_every_epoch_its_own_order(plain_dir):
  epochs = _epochs(plain_dir, 20).reshape(20, -1)
  assert all(len(set(epoch)) == len(epoch) for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 20
  assert set(epochs.ravel()) == set(range(TRAIN))


def test_seeds_share_no_order(plain_dir):
  first, second = _epochs(plain_dir, 5), _epochs(plain_dir, 5, seed=1)
  orders = {tuple(epoch.ravel()) for epoch in (*first, *second)}
  assert len(orders) == 10


def test_labels_stay_with_their_images(plain_dir):
  data = open_stream(plain_dir, PLAIN)
  for batch in _take(data.train_batches(BATCH, seed=0), 6):
    indices = [_index(image) for image in batch.images]
    np.testing.assert_array_equal(batch.labels, np.array(indices) % 2)


def test_a_batch_does_not_depend_on_where_one_starts(noise_dir):
  data = open_stream(noise_dir, CHANGING)
  whole = _take(data.train_batches(BATCH, seed=3), 7)
  for first in (1, 2, 6):
    later = data.train_batches(BATCH, seed=3, first_step=first)
    _assert_equal(_take(later, 7 - first), whole[first:])


def test_no_batch_depends_on_the_number_of_workers(noise_dir):
  alone = open_stream(noise_dir, CHANGING)
  expected = _take(alone.train_batches(BATCH, seed=3, first_step=1), 5)
  data = open_stream(noise_dir, _with_workers(CHANGING, 2))
  batches = data.train_batches(BATCH, seed=3, first_step=1)
  _assert_equal(_take(batches, 5), expected)


def test_other_seeds_and_other_epochs_change_images_otherwise(noise_dir):
  data = open_stream(noise_dir, CHANGING)
  seen = [
    image.tobytes()
    for seed in (0, 1)
    for batch in _take(data.train_batches(BATCH, seed=seed), 8)
    for image in batch.images
  ]
  assert len(set(seen)) == len(seen) == 2 * 8 * BATCH > TRAIN


class _Logged:
  """Records that log which of them were read."""

  def __init__(self, records):
    self.records, self.read = records, []

  def __len__(self):
    return len(self.records)

  def __getitem__(self, index):
    self.read.append(index)
    return self.records[index]


def test_going_on_reads_no_image_that_was_seen_before(noise_dir):
  data = open_stream(noise_dir, CHANGING)
  logged = dataclasses.replace(data, train=_Logged(data.train))
  _take(logged.train_batches(BATCH, seed=0, first_step=10**9), 1)
  # The next batch is on its way already.
  assert BATCH <= len(logged.train.read) <= 2 * BATCH


SHARES = [0, 1], [2, 3]


def test_each_process_reads_its_rows_of_the_batches_and_no_others(noise_dir):
  data = open_stream(noise_dir, CHANGING)
  # Over the end of an epoch.
  whole = _take(data.train_batches(BATCH, seed=3, first_step=1), 3)
  for rows in SHARES:
    logged = dataclasses.replace(data, train=_Logged(data.train))
    own = logged.train_batches(BATCH, seed=3, first_step=1, rows=rows)
    expected = [Examples(*(x[rows] for x in batch)) for batch in whole]
    _assert_equal(_take(own, 3), expected)
    # One more is on its way.
    assert len(logged.train.read) <= 4 * len(rows)


def test_the_test_examples_of_all_processes_count_once(noise_dir):
  data = open_stream(noise_dir, CHANGING)
  whole = list(data.test_batches(BATCH))
  assert sum(counted.sum() for _, counted in whole) == TEST
  for rows in SHARES:
    for (batch, counted), (own, own_counted) in zip(
      whole, data.test_batches(BATCH, rows), strict=True
    ):
      np.testing.assert_array_equal(own.images, batch.images[rows])
      np.testing.assert_array_equal(own_counted, counted[rows])


def test_a_digest_tells_sets_apart(plain_dir, noise_dir):
  plain, again, noise = (
    open_stream(path, PLAIN).digest
    for path in (plain_dir, plain_dir, noise_dir)
  )
  assert plain == again != noise


@pytest.mark.parametrize(("workers", "batch"), [(0, TEST + 3), (2, 2)])
def test_each_test_example_counts_once_and_is_the_middle(
  noise_dir, workers, batch
):
  data = open_stream(noise_dir, _with_workers(CHANGING, workers))
  seen, labels = [], []
  for examples, counted in data.test_batches(batch):
    assert examples.images.shape == (batch, 6, 6, 3)
    assert counted.dtype == bool
    seen += list(examples.images[counted])
    labels += examples.labels[counted].tolist()
  assert labels == [index % 2 for index in range(TEST)]
  for index, image in enumerate(seen):
    encoded = tiny_images.encode(_noise(index), "JPEG")
    photograph = Image.open(io.BytesIO(encoded))
    np.testing.assert_array_equal(
      image, np.asarray(transforms.centre_crop(photograph, 6))
    )


def test_grey_images_become_rgb(tmp_path):
  grey = tiny_images.encode(_noise(0)[..., 0])
  clear = io.BytesIO()
  Image.fromarray(_noise(1)).convert("RGBA").save(clear, "PNG")
  examples = [(grey, 0), (clear.getvalue(), 1)]
  write_foreign(tmp_path, {"train": examples, "test": examples})
  data = open_stream(tmp_path, PLAIN)
  (batch,) = _take(data.train_batches(2, seed=0), 1)
  (image,) = batch.images[batch.labels == 0]
  np.testing.assert_array_equal(image, image[..., :1].repeat(3, -1))
  assert np.ptp(image) > 0


def test_the_digits_can_be_streamed(tmp_path):
  data = stream.open_stream("digits", data_dir=tmp_path, config=PLAIN)
  assert (data.train_examples, data.classes) == (1437, 10)


GOOD = [(tiny_images.encode(_plain(0)), 0)] * 4


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_and_ends_the_stream(tmp_path, workers):
  write_foreign(tmp_path, {"train": [*GOOD, (b"junk", 0)], "test": GOOD})
  data = open_stream(tmp_path, _with_workers(PLAIN, workers))
  with pytest.raises(UserError) as caught:
    _take(data.train_batches(5, seed=0), 1)
  directory = tmp_path / "foreign" / "1.0.0"
  message = f"{directory}: train image 4: not a readable image"
  assert str(caught.value).startswith(message)


def test_a_wrong_label_is_named(tmp_path):
  write_foreign(tmp_path, {"train": GOOD, "test": [*GOOD, (GOOD[0][0], -1)]})
  data = open_stream(tmp_path, PLAIN)
  with pytest.raises(UserError, match="test image 4: label -1; allowed: 0 to"):
    list(data.test_batches(2))


def test_a_test_part_without_labels_is_found_on_opening(tmp_path):
  unlabelled = [(GOOD[0][0], -1)]
  splits = {"train": GOOD, "validation": GOOD, "test": unlabelled}
  write_foreign(tmp_path, splits)
  with pytest.raises(UserError, match="test image 0: label -1"):
    open_stream(tmp_path, PLAIN)
  data = open_stream(tmp_path, PLAIN, test_split="validation")
  assert len(data.test) == 4


def test_a_data_set_that_is_not_there_is_named(tmp_path):
  with pytest.raises(UserError, match="`dataset=foreign`: not in"):
    open_stream(tmp_path, PLAIN)


def test_without_grain_the_user_learns_how_to_get_it(plain_dir, monkeypatch):
  monkeypatch.setitem(sys.modules, "grain", None)
  with pytest.raises(UserError, match="pip install grain"):
    open_stream(plain_dir, PLAIN)


@pytest.mark.parametrize("batch", [0, TRAIN + 1])
def test_a_batch_that_cannot_be_filled_is_refused(plain_dir, batch):
  with pytest.raises(UserError, match=f"batch={batch}`: allowed: 1 to 11"):
    open_stream(plain_dir, PLAIN).train_batches(batch, seed=0)


def test_a_negative_seed_is_refused(plain_dir):
  with pytest.raises(UserError, match="`seed=-1`"):
    open_stream(plain_dir, PLAIN).train_batches(BATCH, seed=-1)


def test_a_worker_that_dies_is_reported(noise_dir):
  data = open_stream(noise_dir, _with_workers(CHANGING, 1))
  batches = data.train_batches(BATCH, seed=0)
  next(batches)
  for process in multiprocessing.active_children():
    process.kill()
  with pytest.raises(UserError, match="workers=1`: a worker process"):
    _take(batches, 1000)


def test_workers_end_with_their_stream(noise_dir):
  data = open_stream(noise_dir, _with_workers(CHANGING, 2))
  for end in (lambda batches: batches.close(), lambda batches: None):
    batches = data.train_batches(BATCH, seed=0)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    end(batches)
    del batches
    assert not multiprocessing.active_children()


PROGRAM = """
import multiprocessing, os, signal, sys, time
from nao_jax.data import stream
# A shell that starts tests in the background lets them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
config = stream.StreamConfig(size=6, workers=2)
data = stream.open_stream("foreign", data_dir=sys.argv[1], config=config)
batches = data.train_batches(4, seed=0)
for _ in range(3):
  next(batches)
workers = [process.pid for process in multiprocessing.active_children()]
assert len(workers) == 2
assert "tensorflow" not in sys.modules
if sys.argv[2] == "Ctrl-C":
  for pid in (*workers, os.getpid()):
    os.kill(pid, signal.SIGINT)
  time.sleep(60)  # A thread may take the signal; until it is passed on.
if sys.argv[2] == "kill":
  os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
  ("end", "code", "tracebacks"),
  [
    ("leave", 0, 0),
    ("Ctrl-C", -signal.SIGINT, 1),
    ("kill", -signal.SIGKILL, 0),
  ],
)
def test_workers_end_with_the_program(noise_dir, end, code, tracebacks):
  with subprocess.Popen(
    [sys.executable, "-c", PROGRAM, noise_dir, end],
    stderr=subprocess.PIPE,
    text=True,
  ) as program:
    # Until the workers have ended as well: they have the pipe, too.
    _, errors = program.communicate(timeout=300)
  assert program.returncode == code, errors
  assert errors.count("Traceback") == tracebacks, errors
  assert bool(errors) == bool(tracebacks), errors


# What each does at its top, where a main guard belongs.
UNGUARDED = """
import pathlib, sys
from nao_jax.data import stream
from nao_jax.runs.environment import in_32_bits
config = stream.StreamConfig(size=6, workers=2)
data = stream.open_stream("foreign", data_dir=sys.argv[1], config=config)
def work():
  pathlib.Path("worked").open("a").write("once ")
  next(data.train_batches(4, seed=0))
"""


@pytest.mark.parametrize(
  "last",
  [
    "next(data.train_batches(4, seed=0))",
    # As the functions that train and search.
    "in_32_bits(work)()",
    # Whatever else a script does.
    "pathlib.Path('only once').touch(exist_ok=False); work()",
  ],
)
def test_a_script_without_a_main_guard_is_told_so_once(
  noise_dir, tmp_path, last
):
  (tmp_path / "script.py").write_text(UNGUARDED + last)
  ended = subprocess.run(
    [sys.executable, "script.py", noise_dir],
    check=False,
    cwd=tmp_path,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 1
  said = [line for line in ended.stderr.splitlines() if "__main__" in line]
  said = [line for line in said if "UserError" in line]
  assert len(said) == 1
  assert "memory" not in said[0]
  if "in_32_bits" in last:
    assert (tmp_path / "worked").read_text() == "once "
    assert ended.stderr.count("Traceback") <= 2, "of the EOF, and of the error"
