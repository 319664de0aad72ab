"""The programs, each of which has a --help."""

from nao_jax.experiments import guard

if guard.starts_a_driver():
  guard.set_up()
