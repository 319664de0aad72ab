"""The cache of compiled programs that drivers keep."""

from absl import flags
from absl.testing import flagsaver
import jax
import pytest

from experiments import compilation_cache
from nao_jax.errors import UserError


@pytest.fixture(autouse=True)
def _as_before():
  flags.FLAGS.mark_as_parsed()
  names = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
  )
  before = {name: getattr(jax.config, name) for name in names}
  yield
  for name, value in before.items():
    jax.config.update(name, value)


def set_up(folder=None):
  with flagsaver.flagsaver(compilation_cache=folder and str(folder)):
    compilation_cache.set_up()
  return jax.config.jax_compilation_cache_dir


def test_a_folder_that_jax_was_told_of_stays(tmp_path):
  jax.config.update("jax_compilation_cache_dir", str(tmp_path))
  assert set_up() == str(tmp_path)


def test_else_it_is_in_the_users_cache_folder_and_private(
  tmp_path, monkeypatch
):
  jax.config.update("jax_compilation_cache_dir", None)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert set_up() == str(tmp_path / "nao_jax" / "programs")
  folder = tmp_path / "nao_jax" / "programs"
  assert folder.stat().st_mode & 0o777 == 0o700


def test_the_flag_comes_first(tmp_path):
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "other"))
  assert set_up(tmp_path / "one") == str(tmp_path / "one")


def test_off_is_off():
  set_up("off")
  assert not jax.config.jax_enable_compilation_cache


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_write_is_refused(tmp_path, mode):
  (tmp_path / "open").mkdir()
  (tmp_path / "open").chmod(mode)
  with pytest.raises(UserError, match=r"other users can write .*open"):
    set_up(tmp_path / "open")


def test_a_file_is_no_folder(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match=r"--compilation_cache=.*cannot be used"):
    set_up(tmp_path / "file")


def test_without_a_home_nothing_is_kept(tmp_path, monkeypatch, caplog):
  jax.config.update("jax_compilation_cache_dir", None)
  (tmp_path / "file").touch()
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  assert set_up() is None


def test_a_usual_folder_that_others_write_is_gone_without(
  tmp_path, monkeypatch
):
  jax.config.update("jax_compilation_cache_dir", None)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  (tmp_path / "nao_jax" / "programs").mkdir(parents=True)
  (tmp_path / "nao_jax" / "programs").chmod(0o777)
  assert set_up() is None


def test_a_home_that_is_not_known_is_named():
  with pytest.raises(UserError, match="--compilation_cache=~nobody-has"):
    set_up("~nobody-has-this-name/programs")


def test_every_folder_that_is_made_is_private(tmp_path):
  set_up(tmp_path / "one" / "two")
  for folder in (tmp_path / "one", tmp_path / "one" / "two"):
    assert folder.stat().st_mode & 0o777 == 0o700
