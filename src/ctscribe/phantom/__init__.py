"""Synthetic chest CT with known truth: the same seed, the same bytes.

In: a seed. Out: a CT-RATE-shaped data set whose reports state what was drawn, and where. A `study`
draws labels, anatomy, findings and wording; `dataset` writes many. Begin with `study`.
"""
