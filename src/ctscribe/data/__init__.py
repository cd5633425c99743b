"""Data sets: listing them, preparing their volumes, and reading what was prepared by split.

In: a CT-RATE tree or the manifest of own scans. Out: a prepared folder, which other wings open
through `Prepared`; bad volumes are rows of ``skipped.jsonl``. `engines` run the work on one machine
or several. Begin with `prepare` and `prepared`.
"""
