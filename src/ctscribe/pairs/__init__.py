"""From studies to training items: splits, negatives, pairs, batches."""
