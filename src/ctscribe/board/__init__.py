"""An experiment's scoreboard: what its cells left behind, on one page."""
