"""The drivers of a checkout: `python -m experiments.search_cnn`, for example.

They are those of `nao_jax.experiments`, which an installed nao_jax has instead:
users have a folder `experiments` of their own.
"""

from nao_jax import experiments as drivers

__path__ = drivers.__path__
