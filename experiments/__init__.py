"""Drivers: absl flags in, one library call."""
