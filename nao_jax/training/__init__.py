"""Optimisers, schedules, train states and steps."""
