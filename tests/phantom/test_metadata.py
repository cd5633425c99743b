import ast

import numpy as np

from ctscribe.base.recipe import PhantomConfig
from ctscribe.data.ct_rate import METADATA_COLUMNS
from ctscribe.phantom.body import Body
from ctscribe.phantom.scanner import draw_exposure, draw_reconstruction, metadata_row


def test_metadata_has_every_column_filled_and_agrees_with_the_grid() -> None:
    rng = np.random.default_rng(0)
    exposure = draw_exposure(rng, Body(age_years=36))
    reconstruction = draw_reconstruction(
        rng, exposure, PhantomConfig(spacing_mm=(2.8, 2.8, 5.0), matrix_px=128), "soft"
    )
    row = metadata_row("train_1_a_1.nii.gz", Body(age_years=36), exposure, reconstruction)
    assert tuple(row) == METADATA_COLUMNS
    assert all(row.values())
    assert row["PatientAge"] == "036Y"
    grid = reconstruction.grid
    assert tuple(ast.literal_eval(row["XYSpacing"])) == grid.spacing_mm[:2]
    x, y, z = ast.literal_eval(row["ImagePositionPatient"])
    np.testing.assert_allclose((-x, -y, z), grid.affine[:3, 3], atol=1e-3)
