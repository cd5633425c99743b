"""What every wing stands on: files, rows, recipes, run folders, tables, errors, types.

In: nothing of ours. Out: atomic files with checksums (`files`), one row type per JSONL file
(`rows`), every knob once (`recipe`), run folders that record their request (`runs`), and
`CtscribeError` with its codes (`errors`, `error_codes`). Begin with `recipe` and `rows`.
"""
