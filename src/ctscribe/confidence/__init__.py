"""How sure a report is: calibrated probabilities, and refusing what cannot be assessed."""
