"""Speed, measured: ratios and rates, never tests."""
