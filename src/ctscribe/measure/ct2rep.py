"""CT2Rep's ``res.csv`` and ``gts.csv``: reports without header or names, one a line.

In: both files, and the studies they are about. Out: the names of the volumes; or the two files.
What CT2Rep wrote stands in ``res.csv``, and the true report in the same line of ``gts.csv``, both
as tokens of its vocabulary. A report belongs to the study whose own report is that true one.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import ReportedRow
from ctscribe.base.tables import count_columns, format_csv, read_single_column
from ctscribe.measure.language import normalise
from ctscribe.measure.shapes import Pair
from ctscribe.text.report_tables import volume_stem

_RESULTS = re.compile(r"res(?=\.csv\Z)", re.IGNORECASE)
_RARE = "<unk>"
Tokens = tuple[str, ...]


def truth_path_of(path: Path) -> Path:
    """Where the true reports belong.

    Raises:
        CtscribeError: ``E_PREDICTION`` for a file that is not called as CT2Rep's are.
    """
    if not _RESULTS.search(path.name):
        raise CtscribeError(
            "E_PREDICTION", f"CT2Rep's predictions must be called res.csv, but are {path.name}"
        )
    return path.with_name(_RESULTS.sub("gts", path.name))


def truth_beside(path: Path) -> Path | None:
    """The file of true reports beside a ``…res.csv`` of one column; None for other files.

    Raises:
        CtscribeError: ``E_PREDICTION`` where it is not there, and as `count_columns`.
    """
    if not _RESULTS.search(path.name) or count_columns(path) != 1:
        return None
    beside = truth_path_of(path)
    if not beside.is_file():
        raise _bad(path, beside, "that is not there")
    return beside


def name_by_truth(path: Path, truth_path: Path, studies: Sequence[ReportedRow]) -> list[Pair]:
    """Puts names to what CT2Rep wrote, by the true reports beside it.

    The studies' order counts where every true report is that of the study in its place. Otherwise
    each must be the report of one scan alone; of several reconstructions the first ones are named.
    True reports without words are passed over.

    Raises:
        CtscribeError: ``E_PREDICTION`` naming the line, and as `read_single_column`.
    """
    written, truth = (read_single_column(each) for each in (path, truth_path))
    if len(written) != len(truth):
        raise _bad(path, truth_path, f"they have {len(written)} and {len(truth)} lines")
    lines = [number for number, text in enumerate(truth) if text.strip(" .")]
    stated = [tuple(truth[number].split()) for number in lines]
    forms = [_forms(study) for study in studies]
    cut_at = max(map(len, stated), default=0)
    if len(stated) == len(studies) and all(
        any(_is_same(said, form, cut_at) for form in own)
        for said, own in zip(stated, forms, strict=True)
    ):
        places = list(range(len(studies)))
    else:
        places = _places_by_text(path, truth_path, lines, stated, studies)
    return [
        (volume_stem(studies[place].volume_name), written[number])
        for number, place in zip(lines, places, strict=True)
    ]


def _places_by_text(
    path: Path,
    truth_path: Path,
    lines: Sequence[int],
    stated: Sequence[Tokens],
    studies: Sequence[ReportedRow],
) -> list[int]:
    """For each true report the place of its study."""
    exact: defaultdict[Tokens, set[int]] = defaultdict(set)
    forms = [_forms(study) for study in studies]
    for place, these in enumerate(forms):
        for form in these:
            exact[form].add(place)
    cut_at, taken, places = max(map(len, stated), default=0), Counter[str](), []
    for number, said in zip(lines, stated, strict=True):
        own = exact.get(said) or {
            place
            for place, these in enumerate(forms)
            if any(_is_same(said, form, cut_at) for form in these)
        }
        scans = {studies[place].scan_id for place in own}
        if len(scans) != 1:
            found = f"that of {len(scans)} scans" if scans else "no study's"
            raise _bad(path, truth_path, f"the true report in line {number + 1} is {found}")
        scan = scans.pop()
        if taken[scan] == len(own):
            raise _bad(path, truth_path, f"line {number + 1} repeats the report of a volume")
        places.append(sorted(own)[taken[scan]])
        taken[scan] += 1
    return places


def _forms(study: ReportedRow) -> set[Tokens]:
    """What CT2Rep may have been given of a report, as tokens."""
    texts = (study.findings, f"{study.findings} {study.impression}", study.whole or "")
    return {tuple(normalise(text, "r2gen", predicted=False).split()) for text in texts if text}


def _is_same(said: Tokens, form: Tokens, cut_at: int) -> bool:
    """Whether tokens are a report's, of which rare words are unknown and a long end is cut."""
    if len(said) > len(form) or len(said) not in (len(form), cut_at):
        return False
    return all(one in (other, _RARE) for one, other in zip(said, form, strict=False))


def _bad(path: Path, truth_path: Path, what: str) -> CtscribeError:
    return CtscribeError(
        "E_PREDICTION",
        f"each line of {path} must answer the study whose report stands in the same line of "
        f"{truth_path.name}, but {what}",
    )


def format_ct2rep(written: Mapping[str, str], studies: Sequence[ReportedRow]) -> tuple[str, str]:
    """The texts of ``res.csv`` and ``gts.csv``, in the order of the studies, as tokens.

    ``written`` is by the studies' volume names; a study without a report has an empty line.
    """
    said, true = [], []
    for study in studies:
        text = written.get(study.volume_name, "")
        said.append(_tokens(text, predicted=True) if text else "")
        true.append(_tokens(f"{study.findings} {study.impression}", predicted=False))
    return format_csv([text] for text in said), format_csv([text] for text in true)


def _tokens(text: str, *, predicted: bool) -> str:
    return " ".join(normalise(text, "r2gen", predicted=predicted).split())
