"""A trained run at work: reports, what each sentence rests on, how sure it is.

In: a run folder and scans, prepared or in memory. Out: predictions, evidence, a `Draft` of one
scan. `ReportWriter` loads a run once and answers; everything else here is thin above it.
Begin with `writer`.
"""
