"""The training objective: pure functions of cross entropies."""
