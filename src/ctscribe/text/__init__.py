"""One report: its sections and sentences, the findings it states, the wording of the prompt.

In: text. Out: sentences (`sections`), mentions of the 18 findings (`labeler`; its words are in
`lexicon`, their misspellings in `spelling`, negation in `polarity`) and of further findings
(`other_findings`), sizes and sides, the prompt and its tokens. Knows nothing of scans. Begin with
`labeler`.
"""
