"""Candidate operations and the networks made of them."""
