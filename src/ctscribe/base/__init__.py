"""What every wing stands on: files, rows, recipes, run folders, errors, types.

In: nothing of ours. Out: atomic files with checksums (`files`), one row type per JSONL file
(`rows`), every knob once (`recipe`), run folders that say what was asked (`runs`), and
`CtscribeError` with its codes (`errors`, `error_codes`). Begin with `recipe` and `rows`.
"""
