"""Inference with a trained run: reports, evidence for each sentence, and confidence.

In: a run folder and scans, prepared or in memory. Out: predictions, evidence, a `Draft` of one
scan. `ReportWriter` loads a run once; the other modules are thin layers above it. Begin with
`writer`.
"""
