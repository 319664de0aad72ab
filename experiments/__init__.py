"""The programs, each of which has a --help."""

from experiments import guard

if guard.starts_a_driver():
  guard.set_up()
