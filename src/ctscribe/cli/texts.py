"""Commands about report texts: labelling, converting, judging."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ctscribe.cli.console import say, stage
from ctscribe.cli.options import Overrides, RecipeName, app
from ctscribe.cli.references import UNSAID, Against, load_references
from ctscribe.config import read_recipe
from ctscribe.errors import CtscribeError
from ctscribe.files import write_json, write_text

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
            "evidence is what the rules rest on, but a classifier is to read the findings; leave "
            "out --evidence or --classifier",
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


@app.command
def judge(
    predictions: Path,
    *,
    against: Against = UNSAID,
    endpoint: Annotated[
        str, Parameter(help="OpenAI-compatible server, such as http://127.0.0.1:8000.")
    ],
    model: Annotated[str, Parameter(help="Name the server knows the model by.")],
    out: Path | None = None,
    allow_remote: Annotated[
        bool, Parameter(help="Send reports, which are patient data, to another machine.")
    ] = False,
    recipe: RecipeName = "tiny",
    overrides: Overrides = (),
) -> None:
    """Let a language model score PREDICTIONS against reports, from 0 to 1 each.

    The reports are those of SPLIT of PREPARED, or all of the table REFERENCES.
    """
    from ctscribe.judges.endpoint import Endpoint, require_local
    from ctscribe.judges.language_model import cases_of, judge_reports

    require_local(endpoint, anywhere=allow_remote)
    knobs = read_recipe(recipe, overrides)
    cases = cases_of(predictions, load_references(against, knobs.pairs.validation_fraction))
    target = out or predictions.with_name("judged.json")
    with stage("Judging reports") as progress:
        judged = judge_reports(
            cases,
            Endpoint(endpoint, model),
            target.with_suffix(".cache"),
            resamples=knobs.evaluate.resamples,
            seed=knobs.evaluate.seed,
            progress=progress,
        )
    write_json(target, judged)
    mean = judged["mean"]
    say(f"Mean score {mean['value']:.3f} ({mean['low']:.3f} to {mean['high']:.3f}), see {target}")
    if judged["failed"]:
        say(f"note: {len(judged['failed'])} of {len(cases)} reports could not be judged")


def load_classifier(folder: Path) -> "Classifier":
    """The classifier of a folder; tells on the console how many texts it had to cut."""
    from ctscribe.judges.classifier import MAX_TOKENS, Classifier

    def tell(num_cut: int, num_texts: int) -> None:
        if num_cut:
            say(f"note: {num_cut} of {num_texts} texts were cut at {MAX_TOKENS} tokens")

    return Classifier(folder, tell)
