"""A written report's findings, with the sentences they rest on."""

from ctscribe.export.report import FindingRow
from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.labeler import Mention, find_mentions


def finding_rows(text: str) -> tuple[FindingRow, ...]:
    """One row per finding, in the order of `FINDINGS`.

    A finding affirmed anywhere is present; else hedged, uncertain; else denied, absent. Its
    sentences are those that say so.
    """
    mentions = find_mentions(text)
    return tuple(
        _row(finding, [mention for mention in mentions if mention.finding == finding])
        for finding in FINDINGS
    )


def _row(finding: str, mentions: list[Mention]) -> FindingRow:
    for status in ("present", "uncertain", "absent"):
        sentences = dict.fromkeys(each.sentence for each in mentions if each.status == status)
        if sentences:
            return FindingRow(finding, status, tuple(sentences))
    return FindingRow(finding, "not mentioned")
