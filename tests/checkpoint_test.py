import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.runs import checkpoint

TREE = {"a": np.zeros((2, 3), np.float32), "b": (np.int32(0), np.zeros(4))}


def _filled(value):
  return {
    "a": np.full((2, 3), value, np.float32),
    "b": (np.asarray(value, np.int32), np.full(4, value, np.float64)),
  }


def _damage(directory, step):
  """Cuts every file of a checkpoint in half."""
  files = [f for f in (directory / str(step)).rglob("*") if f.is_file()]
  assert files
  for file in files:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _assert_equal(tree, expected):
  np.testing.assert_array_equal(tree["a"], expected["a"])
  np.testing.assert_array_equal(tree["b"][0], expected["b"][0])
  np.testing.assert_array_equal(tree["b"][1], expected["b"][1])
  assert tree["b"][1].dtype == expected["b"][1].dtype


def test_what_was_saved_last_is_restored(tmp_path):
  assert checkpoint.restore(tmp_path / "none", TREE) is None
  for step in (1, 2, 3):
    checkpoint.save(tmp_path, _filled(step))
  _assert_equal(checkpoint.restore(tmp_path, TREE), _filled(3))


def test_an_array_without_elements_keeps_its_shape_and_type(tmp_path):
  checkpoint.save(tmp_path, {"a": np.zeros((0, 3), np.int32)})
  found = checkpoint.restore(tmp_path, {"a": np.zeros((2, 3), np.int32)})
  assert (found["a"].shape, found["a"].dtype) == ((0, 3), np.int32)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
  for step in (1, 2, 3):
    checkpoint.save(tmp_path, _filled(step))
  _damage(tmp_path, 3)
  _assert_equal(checkpoint.restore(tmp_path, TREE), _filled(2))
  _damage(tmp_path, 2)
  with pytest.raises(UserError, match="all 2 checkpoints are damaged"):
    checkpoint.restore(tmp_path, TREE)


def test_a_state_of_another_shape_is_not_mixed_up(tmp_path):
  checkpoint.save(tmp_path, _filled(1))
  with pytest.raises(UserError, match="another version"):
    checkpoint.restore(tmp_path, TREE | {"a": np.zeros(3)})
