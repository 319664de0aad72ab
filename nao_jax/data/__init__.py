"""Datasets (TFDS in, arrays out) and augmentation."""

from nao_jax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, __path__)
