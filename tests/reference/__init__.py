"""Checks against reference numbers; tests.reference_cases runs them."""
