"""What can be searched: token grammars and what the tokens mean."""

from nao_jax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, __path__)
