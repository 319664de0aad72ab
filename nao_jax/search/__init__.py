"""The search: its loop, state and journal, and the trainings after it."""

from nao_jax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, __path__)
