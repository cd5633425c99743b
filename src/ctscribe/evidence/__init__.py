"""Which slices each sentence of a report rests on, and whether that can be believed."""
