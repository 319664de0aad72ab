"""The projection of embeddings to two dimensions."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from nao_jax.strategies.projection import project


def test_a_plane_is_that_of_the_principal_components():
  rng = np.random.default_rng(0)
  members, proposals = rng.normal(size=(20, 6)), rng.normal(size=(3, 6))
  found, pca = project(members, proposals), PCA(2).fit(members)
  np.testing.assert_allclose(
    np.abs(found.members), np.abs(pca.transform(members)), rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(
    np.abs(found.proposals), np.abs(pca.transform(proposals)), rtol=1e-4
  )
  np.testing.assert_allclose(
    found.share, pca.explained_variance_ratio_, rtol=1e-5
  )


@pytest.mark.parametrize("shape", [(1, 5), (4, 1), (2, 2)])
def test_a_plane_is_there_for_whatever_is_embedded(shape):
  found = project(np.ones(shape), np.zeros((0, shape[1])))
  assert found.members.shape == (shape[0], 2)
  assert found.proposals.shape == (0, 2)
  assert not found.members.any()
  assert not found.share.any()
