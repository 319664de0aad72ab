"""Neural Architecture Optimization (Luo et al., NeurIPS 2018) in JAX."""
