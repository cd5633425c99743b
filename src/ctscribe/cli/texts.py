"""Commands about report texts: labelling, converting."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ctscribe.cli.console import say
from ctscribe.cli.options import app
from ctscribe.errors import CtscribeError
from ctscribe.files import write_text

if TYPE_CHECKING:
    from ctscribe.judges.classifier import Classifier

ClassifierFolder = Annotated[
    Path | None,
    Parameter(name="--classifier", help="Folder of a text encoder with a head over 18 findings."),
]


@app.command
def label(
    reports: Path,
    *,
    out: Path,
    classifier: ClassifierFolder = None,
    evidence: Annotated[
        Path | None, Parameter(help="JSONL of the words and sentences that the rules rest on.")
    ] = None,
) -> None:
    """Write CT-RATE's 18 labels for each report of the CSV file REPORTS to OUT."""
    from ctscribe.reports.label_files import label_csv
    from ctscribe.reports.labeler import label_reports

    if classifier and evidence:
        raise CtscribeError(
            "E_OPTION",
            "--evidence is what the rules rest on, but --classifier is to read the findings",
        )
    read = label_reports if classifier is None else load_classifier(classifier).read
    num_reports = label_csv(reports, out, read=read, evidence_path=evidence)
    say(f"Labels of {num_reports} reports in {out}")
    if evidence:
        say(f"Words and sentences in {evidence}")


@app.command
def convert(
    predictions: Path,
    *,
    to: Annotated[Literal["csv", "vlm3d", "ct-chat"], Parameter(help="Whose format to write.")],
    out: Path,
) -> None:
    """Write PREDICTIONS (our JSONL, CSV, or JSON of VLM3D or CT-CHAT) in another tool's format."""
    from ctscribe.evaluate.formats import format_written, read_written

    written = read_written(predictions)
    write_text(out, format_written(written, to))
    say(f"{len(written)} reports in {out}")


def load_classifier(folder: Path) -> "Classifier":
    """The classifier of a folder; tells on the console how many texts it had to cut."""
    from ctscribe.judges.classifier import MAX_TOKENS, Classifier

    def tell(num_cut: int, num_texts: int) -> None:
        if num_cut:
            say(f"note: {num_cut} of {num_texts} texts were cut at {MAX_TOKENS} tokens")

    return Classifier(folder, tell)
