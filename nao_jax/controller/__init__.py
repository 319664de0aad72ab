"""The seq2seq controller: encode, predict, decode, ascend."""

from nao_jax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, __path__)
