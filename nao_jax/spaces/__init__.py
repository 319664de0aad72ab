"""Search spaces: token grammars and the meaning of tokens."""

from nao_jax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, __path__)
