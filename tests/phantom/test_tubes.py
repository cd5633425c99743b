import numpy as np
import pytest

from ctscribe.phantom.tubes import Tubes, paint_tubes, path
from tests.phantom.lungs import filled_lung, grid_of, volume_of


@pytest.mark.parametrize("radius", [0.6, 1.2, 2.5, 4.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.8, 2.8, 5.0)])
def test_tubes_keep_their_volume(spacing: tuple[float, float, float], radius: float) -> None:
    canvas = filled_lung(grid_of(spacing))
    tube = path([(-20.0, -12.0, -9.0), (22.0, 15.0, 11.0)], radius)
    paint_tubes(canvas, tube, 40.0)
    length = float(np.linalg.norm(tube.end - tube.start))
    truth = np.pi * radius**2 * length
    assert volume_of(canvas, -850.0, 40.0) == pytest.approx(truth, rel=0.3)


def test_tubes_equal_capsules_painted_one_by_one() -> None:
    tubes = Tubes(
        start=np.array([[-20.0, 0, 0], [5.0, 10, -10]]),
        end=np.array([[10.0, 8, 5], [20.0, -10, 10]]),
        radius_mm=np.array([5.0, 4.0]),
        end_radius_mm=np.array([4.0, 3.0]),
    )
    single, batch = filled_lung(grid_of((1.0,) * 3)), filled_lung(grid_of((1.0,) * 3))
    paint_tubes(batch, tubes, 40.0)
    for row in range(2):
        paint_tubes(single, tubes[np.array([row])], 40.0)
    assert np.abs(batch.hu - single.hu).max() < 120
    assert np.abs(batch.hu - single.hu).mean() < 0.5
    assert not batch.scratch.any()


def test_tubes_beyond_the_volume_are_cut_off() -> None:
    canvas = filled_lung(grid_of((2.0, 2.0, 2.0)))
    paint_tubes(canvas, path([(0.0, 0.0, 0.0), (300.0, 0.0, 0.0)], 3.0), 40.0)
    paint_tubes(canvas, path([(200.0, 0.0, 0.0), (300.0, 0.0, 0.0)], 3.0), 40.0)
    assert canvas.hu.max() == pytest.approx(40)
