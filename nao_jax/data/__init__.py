"""Data sets (read from TFDS into arrays) and augmentation."""

from nao_jax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, __path__)
