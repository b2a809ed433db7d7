"""The benchmark: tiers and their secret draws, files, scores, scenarios, methods and results."""
