"""Training on pairs: order, loss, checkpoints, log."""
