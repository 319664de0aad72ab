"""The code on the pages runs."""

import shutil

import jax
import numpy as np
import pytest

from nao_jax.controller.model import Controller
from nao_jax.strategies import nao_plus
from nao_jax.strategies.ensemble import NaoPlusConfig
from tests import pages, tiny_controllers

README, *OTHERS = pages.PAGES
WITH_CODE = [
  page
  for page in OTHERS
  # Jupyter runs them in notebooks_test.py.
  if pages.code(page) and page.parent.name != "notebooks"
]


@pytest.fixture(autouse=True)
def short_fits(monkeypatch):
  """Searches whose strategy is the default one fit little for a short time."""
  config = NaoPlusConfig(members=2, pretraining=20, steps=5)

  def small(space, estimates_cost=False):
    controller = Controller(space, tiny_controllers.TINY, estimates_cost)
    return nao_plus.NaoPlus(controller, config)

  monkeypatch.setattr(nao_plus, "small", small)


@pytest.fixture
def folder(tmp_path, digits_folder, monkeypatch):
  """A folder to run in, with what the commands on the pages leave there.

  That experiments.evaluate_cnn writes such a network: cnn_training_test.
  """
  function = jax.jit(lambda images: images.sum((1, 2)).astype("float32"))
  (batch,) = jax.export.symbolic_shape("batch")
  images = jax.ShapeDtypeStruct((batch, 4, 4, 3), "uint8")
  exported = jax.export.export(function)(images)
  (tmp_path / "network.jax").write_bytes(exported.serialize())
  shutil.copytree(digits_folder, tmp_path / "data")
  monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", WITH_CODE, ids=pages.name)
def test_the_code_of_a_page_runs(page):
  pages.run(page)


@pytest.mark.usefixtures("folder")
def test_the_code_of_the_readme_decodes_architectures():
  names = pages.run(README)
  proposals = np.asarray(names["proposals"])
  assert len(proposals) == len(names["seeds"])
  assert all(map(names["controller"].space.accepts, proposals.tolist()))
