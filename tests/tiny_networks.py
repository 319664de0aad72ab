"""What makes tests of networks compile fast."""

# Compiler options: less optimisation, in half the time.
QUICK = {"xla_backend_optimization_level": 0}
