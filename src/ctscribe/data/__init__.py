"""Data sets: what they list, what of it is prepared, and who reads it in which split.

In: a CT-RATE tree or the manifest of own scans. Out: a prepared folder, which everybody else
opens through `Prepared`; bad volumes are rows of ``skipped.jsonl``. `engines` say where volumes
are worked on. Begin with `prepare` and `prepared`.
"""
