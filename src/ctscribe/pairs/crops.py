"""Whether a model is shown the crops it was trained with: as many, chosen by the same weights."""

from collections.abc import Sequence
from pathlib import Path

from ctscribe.errors import CtscribeError
from ctscribe.files import read_json
from ctscribe.rows import StudyRow
from ctscribe.run import weights_sha256

LEAD = "lead_sha256"
"""What a run's request calls the fingerprint of the weights that chose its studies' crops."""


def check_crops(studies: Sequence[StudyRow], second_look: int) -> None:
    """Refuses studies that would be shown otherwise than the recipe tells.

    Args:
        studies: Those that a model is shown.
        second_look: The recipe's ``slices.second_look``.

    Raises:
        CtscribeError: ``E_PAIRS``.
    """
    for study in studies:
        if len(study.crop_to_ras) != second_look:
            raise CtscribeError(
                "E_PAIRS",
                f"{study.volume_name} must read as many pairs of slices again as the recipe's "
                f"slices.second_look says, {second_look}, but reads {len(study.crop_to_ras)}; "
                "run second-look first or set slices.second_look to that number",
            )


def check_shown(
    run_dir: Path, prepared_dir: Path, studies: Sequence[StudyRow], second_look: int
) -> None:
    """Refuses studies that would be shown otherwise than those a run was trained with.

    Args:
        run_dir: The run.
        prepared_dir: Where the studies are.
        studies: Those that its model is shown.
        second_look: Its recipe's ``slices.second_look``.

    Raises:
        CtscribeError: ``E_PAIRS`` for another number of crops, ``E_WEIGHTS`` for crops chosen by
            other weights, ``E_RUN`` when the run does not tell by which.
    """
    check_crops(studies, second_look)
    if second_look and lead_of(prepared_dir) != recorded_lead(run_dir):
        raise CtscribeError(
            "E_WEIGHTS",
            f"the crops in {prepared_dir} must be chosen by the weights that chose those {run_dir} "
            "was trained with, but others chose them; run second-look with the same --start",
        )


def check_lead(run_dir: Path, second_look: int, lead: Path | None) -> str | None:
    """Refuses to choose a scan's crops by other weights than those that chose a run's.

    Args:
        run_dir: The run.
        second_look: Its recipe's ``slices.second_look``.
        lead: The checkpoint that would choose.

    Returns:
        Its fingerprint; None for a run without crops.

    Raises:
        CtscribeError: ``E_OPTION`` when there is nothing to choose, ``E_WEIGHTS`` for no weights
            or others, ``E_RUN`` when the run does not tell which it wants.
    """
    if not second_look:
        if lead is not None:
            raise CtscribeError(
                "E_OPTION",
                "--lead must go with a run trained on a second look, but this run's "
                "slices.second_look is 0; leave it out",
            )
        return None
    wanted = recorded_lead(run_dir)
    if lead is None or weights_sha256(lead) != wanted:
        found = "--lead is missing" if lead is None else f"{lead} holds others or none"
        raise CtscribeError(
            "E_WEIGHTS",
            f"a second look must be led by the weights that led it for the run ({wanted[:12]}), "
            f"but {found}; give as --lead the folder that second-look was given as --start",
        )
    return wanted


def lead_of(prepared_dir: Path) -> str:
    """Fingerprint of the weights that chose a prepared folder's crops.

    Raises:
        CtscribeError: ``E_PAIRS`` when it has no crops.
    """
    look = read_json(prepared_dir / "prepare.json").get("second_look")
    if look is None:
        raise CtscribeError(
            "E_PAIRS",
            f"{prepared_dir} must hold the crops that slices.second_look asks for, but has none; "
            "run second-look first or set slices.second_look to 0",
        )
    return str(look["weights_sha256"])


def recorded_lead(run_dir: Path) -> str:
    """Fingerprint of the weights that chose the crops a run was trained with.

    Raises:
        CtscribeError: ``E_RUN`` when it was trained before runs kept it.
    """
    found = read_json(run_dir / "run.json").get("asked", {}).get(LEAD)
    if found is None:
        raise CtscribeError(
            "E_RUN",
            f"{run_dir} must tell which weights chose the crops it was trained with, but it was "
            "trained before runs kept that; train it again",
        )
    return str(found)
