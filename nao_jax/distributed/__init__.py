"""Runs in several processes: the first runs everything, the others help."""

from nao_jax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, __path__)
