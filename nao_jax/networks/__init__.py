"""Candidate operations and the networks built from them."""

from nao_jax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, __path__)
