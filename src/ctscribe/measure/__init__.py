"""What written reports are worth.

In: predictions of any model and references. Out: scores with intervals beside blind baselines
(`scores`), paired comparisons (`compare`), the image-dependence card (`card`), calibration and
faithfulness of a run. Begin with `scores`.
"""
