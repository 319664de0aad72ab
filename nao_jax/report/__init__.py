"""Reports of searches as HTML pages, and the state of a run on a terminal."""

from nao_jax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, __path__)
