import numpy as np
import pytest

from ctscribe.phantom.canvas import AIR_HU, Canvas, Stroke, paint
from ctscribe.phantom.shapes import Ellipsoid
from tests.phantom.lungs import filled_lung, grid_of, volume_of


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 1.0), (2.8, 2.8, 5.0), (1.0, 1.0, 8.0)])
@pytest.mark.parametrize("radius", [4.0, 14.0])
def test_a_ball_keeps_its_volume_at_any_resolution(
    spacing: tuple[float, float, float], radius: float
) -> None:
    canvas = Canvas.of_air(grid_of(spacing))
    ball = Ellipsoid((1.3, -2.1, 3.7), (radius, radius, radius))
    paint(canvas, [Stroke(ball, ((0.0, 40.0),))])
    truth = 4 / 3 * np.pi * radius**3
    assert volume_of(canvas, AIR_HU, 40.0) == pytest.approx(truth, rel=0.12)


def test_inner_layers_lie_inside_outer_ones() -> None:
    canvas = Canvas.of_air(grid_of((1.0, 1.0, 1.0)))
    ball = Ellipsoid((0.5, 0.5, 0.5), (20.0, 20.0, 20.0))
    paint(canvas, [Stroke(ball, ((0.0, 300.0), (5.0, 40.0)))])
    line = canvas.hu[40, 39, :]
    assert line[39] == pytest.approx(40)
    assert line[39 + 18] == pytest.approx(300, abs=1)
    assert line[39 + 25] == AIR_HU


def test_organs_take_lung_away_and_lung_strokes_stay_in_it() -> None:
    canvas = filled_lung(grid_of((1.0, 1.0, 1.0)))
    organ = Ellipsoid((0.0, 0.0, 0.0), (10.0, 10.0, 10.0))
    paint(canvas, [Stroke(organ, ((0.0, 40.0),), "organ")])
    assert canvas.lung[40, 40, 40] == 0
    assert canvas.lung[0, 0, 0] == 1
    wide = Ellipsoid((0.0, 0.0, 0.0), (20.0, 20.0, 20.0))
    paint(canvas, [Stroke(wide, ((0.0, 300.0),), "lung", adds=True)])
    assert canvas.hu[40, 40, 40] == pytest.approx(40)
    assert canvas.hu[40, 40, 40 + 15] == pytest.approx(-550)


def test_rotation_turns_the_body() -> None:
    canvas = Canvas.of_air(grid_of((1.0, 1.0, 1.0), roll=np.pi / 2))
    rod = Ellipsoid((0.0, 0.0, 0.0), (25.0, 4.0, 4.0))
    paint(canvas, [Stroke(rod, ((0.0, 40.0),))])
    assert canvas.hu[40, 20, 40] == pytest.approx(40)
    assert canvas.hu[40, 40, 20] == AIR_HU
