"""The included tasks: networks for images, recurrent cells for text."""

from nao_jax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, __path__)
