"""Whether studies are shown with as many crops as a recipe says."""

from collections.abc import Sequence

from ctscribe.errors import CtscribeError
from ctscribe.rows import StudyRow


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
