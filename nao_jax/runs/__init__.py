"""Parts that every run shares: its folder, checkpoints, progress, processes."""

from nao_jax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, __path__)
