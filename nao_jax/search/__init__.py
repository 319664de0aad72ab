"""A search: the loop, its state and journal, and what follows it."""

from nao_jax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, __path__)
