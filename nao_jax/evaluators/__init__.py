"""Evaluators: tokens in, scores out."""
