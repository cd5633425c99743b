"""Coarse frames of few slices, read again twice."""

from ctscribe.config import Recipe

RECIPE = Recipe.model_validate(
    {
        "phantom": {"num_train_patients": 8, "num_valid_patients": 0, "second_reconstruction": 0},
        "volume": {"spacing_mm": [4.0, 4.0, 5.0]},
        "slices": {
            "num_slices": 6,
            "windows": "three",
            "frame_size_px": [84, 112],
            "token_budget": 18,
            "second_look": 2,
        },
        "pairs": {"validation_fraction": 0.45},
        "model": {
            "preset": "tiny",
            "dtype": "float32",
            "positions": "depth",
            "slice_attention": True,
        },
        "train": {"epochs": 1, "gradient_accumulation_steps": 2, "checkpoints_per_epoch": 1},
        "generate": {"max_new_tokens": 24},
        "warm_up": {"num_patients": 6, "epochs": 1, "batch_size": 4, "seed": 9},
    }
)
