from hypothesis import given
from hypothesis import strategies as st

from ctscribe.base.types import Labels
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import label_report
from ctscribe.text.sections import join_report, split_report
from ctscribe.text.template import write_template


@given(st.tuples(*[st.integers(0, 1)] * len(FINDINGS)))
def test_a_template_states_its_labels_and_nothing_else(labels: Labels) -> None:
    findings, impression = write_template(labels)
    assert label_report(join_report(findings, impression)) == labels
    assert label_report(findings) == labels
    assert label_report(impression) == labels
    assert split_report(join_report(findings, impression)) == (findings, impression)


def test_a_normal_chest() -> None:
    findings, impression = write_template((0,) * 18)
    assert findings.startswith("The heart is normal in size.")
    assert impression == "No abnormality is seen."
