"""Benchmarks of speed and search quality; none of them is a test."""
