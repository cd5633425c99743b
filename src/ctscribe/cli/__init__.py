"""The command line: parse, call one function, print. Nothing else prints.

In: words and files. Out: a stage's files, sentences on stderr, results on stdout. Commands are
grouped as the wings are: `data`, `learn`, `measure`; what they share is in `options`,
`references` and `console`. Begin with `app`.
"""
