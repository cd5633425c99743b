"""Four small studies, two of them with a nodule, and the recipe that they are prepared for."""

from ctscribe.base.recipe import Recipe
from tests.studies import study_row

NODULE = {"findings": "A nodule is seen in the right lung.", "impression": "Lung nodule."}
INDICES = (35, 30, 25, 20, 15, 10)
STUDIES = [
    study_row(f"valid_{n}_a_1.nii.gz", slice_indices=INDICES, **(NODULE if n % 2 else {}))
    for n in range(4)
]
RECIPE = Recipe.model_validate(
    {
        "slices": {"num_slices": 6, "frame_size_px": (56, 56), "windows": "single"},
        "model": {"positions": "depth", "dtype": "float32"},
        "generate": {"max_new_tokens": 6, "batch_size": 3},
        "evaluate": {"resamples": 100},
    }
)
