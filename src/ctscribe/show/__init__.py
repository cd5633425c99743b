"""What people look at: tables, figures, the card, the scoreboard, the page of one scan.

In: scores, cards and drafts as plain values. Out: Markdown, CSV, LaTeX, PNG, JSON, one
self-contained HTML page. Nothing here imports torch. Begin with `report` or `score_tables`.
"""
