"""One patient's draft report, and an experiment's scoreboard, as files to read and keep."""
