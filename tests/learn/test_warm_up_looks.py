import pytest

from ctscribe.data.lesions import Place
from ctscribe.learn.warm_up import keep_share

NAMES = [f"train_{n}_a_1.nii.gz" for n in range(40)]
PLACES = {
    name.removesuffix(".nii.gz"): (Place("Lung nodule", ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))),)
    for name in NAMES
}


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.05, 2), (0.25, 10), (1.0, 40)])
def test_a_share_keeps_that_many(share: float, kept: int) -> None:
    assert len(keep_share(PLACES, NAMES, share, seed=0)) == kept


def test_shares_are_nested_and_drawn_by_seed() -> None:
    small, large = (keep_share(PLACES, NAMES, share, seed=0) for share in (0.05, 0.25))
    assert small.keys() < large.keys()
    assert keep_share(PLACES, NAMES, 0.25, seed=1).keys() != large.keys()


def test_studies_without_places_stay_without() -> None:
    assert keep_share({}, NAMES, 1.0, seed=0) == {}
