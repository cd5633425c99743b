"""One report: its sections and sentences, the findings it states, the words of the prompt.

In: text. Out: sentences (`sections`), the 18 findings with what each rests on (`labeler`, with
its words in `lexicon`, their misspellings in `spelling` and its grammar in `polarity`), what the
18 cannot say (`other_findings`), sizes and sides, the prompt and its tokens. Knows nothing of
scans. Begin with `labeler`.
"""
