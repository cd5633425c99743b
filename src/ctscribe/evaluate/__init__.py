"""Scores that can be believed: language, findings, strata, intervals, blind baselines."""
