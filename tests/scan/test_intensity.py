from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctscribe.scan.intensity import clip_hu, is_raw, normalise, rescale, to_hu
from ctscribe.scan.volume import Notes
from tests.refusals import refusal
from tests.scans import coarse_chest


@pytest.fixture
def hu() -> np.ndarray:
    return coarse_chest().hu.copy()


@pytest.mark.parametrize("intercept", [-1024.0, -8192.0, -1000.0])
def test_raw_and_hu_are_told_apart(hu: np.ndarray, intercept: float) -> None:
    raw = (hu - int(intercept)).astype(np.int16)
    eq1 = (1.0, intercept)
    assert is_raw(raw, eq1, "auto", "s")
    assert not is_raw(hu, eq1, "auto", "s")
    assert not is_raw(hu, None, "auto", "s")
    assert not is_raw(hu, (1.0, 0.0), "hu", "s")


@pytest.mark.parametrize("intercept", [-1024.0, -8192.0])
@pytest.mark.parametrize("padding", [-2000, -2048, -3024, -8192])
def test_padding_does_not_mislead(hu: np.ndarray, intercept: float, padding: int) -> None:
    padded = hu.copy()
    padded[:20] = padding
    found, notes = to_hu(padded, (1.0, intercept), "auto", "s")
    assert notes.codes == {"W_PADDING"}
    assert found.min() == -1024
    raw = hu.astype(np.int32)
    raw[:20] = padding
    stored = np.clip(raw - int(intercept), -32768, 32767).astype(np.int16)
    from_raw, _ = to_hu(stored, (1.0, intercept), "auto", "s")
    np.testing.assert_array_equal(from_raw, found)


@pytest.mark.parametrize(
    ("make", "guess"),
    [
        (lambda hu: np.clip(hu + 1024, 0, 4095), "as before rescaling"),
        (lambda hu: np.clip((hu + 1000) / 8, 0, 255), "as in a picture"),
        (lambda hu: np.clip(hu / 1000, -1, 1), "as after normalisation"),
        (lambda hu: hu * 10, "and do not"),
    ],
)
def test_not_hu_with_a_guess(
    hu: np.ndarray, make: Callable[[np.ndarray], np.ndarray], guess: str
) -> None:
    with refusal("E_NOT_HU") as caught:
        to_hu(make(hu).astype(np.float32), None, "auto", "s")
    assert guess in caught.value.sentence


@given(st.integers(-32768, 32767), st.sampled_from([1.0, 2.0, 0.5]), st.integers(-9000, 9000))
def test_equation_1_never_wraps(value: int, slope: float, intercept: int) -> None:
    stored = np.full((1, 1, 1), value, dtype=np.int16)
    hu = rescale(stored, (slope, float(intercept)))
    exact = value * slope + intercept
    assert hu.dtype == (np.int16 if slope.is_integer() else np.float32)
    assert hu[0, 0, 0] == (np.clip(exact, -32768, 32767) if slope.is_integer() else exact)


def test_padding_becomes_air_and_noise_is_no_padding() -> None:
    noisy, notes = clip_hu(np.array([[[-1100, 40, 3000]]], dtype=np.int16))
    assert noisy.tolist() == [[[-1024, 40, 3000]]]
    assert notes == Notes()


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_padding_and_metal_are_limited_and_counted(dtype: type) -> None:
    values = [-8192, -3024, -2048, -2000, -1400, -1024, 0, 3071, 3072, 30000]
    limited, notes = clip_hu(np.array([[values]], dtype=dtype))
    assert limited.tolist() == [[[-1024] * 6 + [0, 3071, 3071, 3071]]]
    assert notes.codes == {"W_PADDING", "W_METAL"}
    assert notes.details == {"changed_voxels": {"W_METAL": 2, "W_PADDING": 4}}


def test_equation_3() -> None:
    found = normalise(np.array([-3000.0, -1000, -500, 0, 1000, 2000], dtype=np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [-1, -1, -0.5, 0, 1, 1])
