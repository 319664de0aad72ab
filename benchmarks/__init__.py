"""Benchmarks of speed and search quality, which are not tests."""
