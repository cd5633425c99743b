"""Training objectives: pure functions of cross entropies, from one token up to one update."""
