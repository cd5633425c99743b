"""What people look at: tables, figures, the card, the scoreboard, the report of one scan.

In: scores, cards and drafts as plain values. Out: Markdown, CSV, LaTeX, PNG, JSON, DICOM SR, FHIR,
and HTML pages that need nothing beside them. Importing any of it leaves torch alone. Begin with
`report` for one scan, with `score_tables` for scores.
"""
