from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import RobertaModel

from ctscribe.base.errors import CtscribeError
from ctscribe.measure.classifier import Classifier

TEXTS = ["no nodule is seen", "large effusion", "heart is normal and small nodule in the lung"]


def ignore(*_: int) -> None:
    pass


@pytest.fixture(scope="module")
def classifier(classifier_dir: Path) -> Classifier:
    return Classifier(classifier_dir, ignore)


def test_labels_are_the_heads_probabilities_from_a_half(
    classifier: Classifier, classifier_dir: Path
) -> None:
    # Written out for one text after another, with ids looked up by hand.
    from tokenizers import Tokenizer

    encoder = RobertaModel.from_pretrained(classifier_dir).eval()
    backend = Tokenizer.from_file(str(classifier_dir / "tokenizer.json"))
    head = load_file(classifier_dir / "head.safetensors")
    expected = []
    with torch.inference_mode():
        for text in TEXTS:
            ids = torch.tensor([backend.encode(text).ids])
            pooled = encoder(input_ids=ids).pooler_output[0]
            logits = head["classifier.weight"] @ pooled + head["classifier.bias"]
            expected.append((1 / (1 + torch.exp(-logits))).numpy())
    found = classifier.probabilities(TEXTS)
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-6)
    labels = classifier.read(TEXTS)
    assert labels.dtype == bool
    np.testing.assert_array_equal(labels, np.stack(expected) >= 0.5)
    assert 0 < labels.mean() < 1


def test_a_text_is_read_the_same_in_any_company(classifier: Classifier) -> None:
    alone = np.concatenate([classifier.probabilities([text]) for text in TEXTS])
    many = classifier.probabilities([*TEXTS * 7, "lung"])
    np.testing.assert_allclose(many[:3], alone, atol=1e-6)
    np.testing.assert_allclose(many[18:21], alone, atol=1e-6)
    assert classifier.read([]).shape == (0, 18)


def test_cut_texts_are_told_and_read_by_their_first_510_words(classifier_dir: Path) -> None:
    told: list[tuple[int, int]] = []
    classifier = Classifier(classifier_dir, lambda *numbers: told.append(numbers))
    fits, cut = "lung " * 510, "lung " * 510 + "large effusion"
    found = classifier.probabilities([fits, cut, "lung"])
    assert told == [(1, 3)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert not np.allclose(found[0], found[2])


def test_the_name_follows_the_weights_not_the_place(classifier_dir: Path, tmp_path: Path) -> None:
    copy = copied(classifier_dir, tmp_path / "copy")
    assert Classifier(copy, ignore).name == Classifier(classifier_dir, ignore).name
    head = load_file(copy / "head.safetensors")
    save_file({**head, "classifier.bias": head["classifier.bias"] + 1}, copy / "head.safetensors")
    assert Classifier(copy, ignore).name != Classifier(classifier_dir, ignore).name


def copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("head.safetensors", None, "E_MISSING"),
        ("model.safetensors", None, "E_MISSING"),
        ("head.safetensors", b"rubbish", "E_WEIGHTS"),
        ("model.safetensors", b"rubbish", "E_WEIGHTS"),
        ("config.json", b"{}", "E_WEIGHTS"),
    ],
)
def test_incomplete_folders_are_refused(
    classifier_dir: Path, tmp_path: Path, name: str, content: bytes | None, code: str
) -> None:
    folder = copied(classifier_dir, tmp_path / "broken")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(CtscribeError, match=code):
        Classifier(folder, ignore)


@pytest.mark.parametrize("shape", [(14, 16), (18, 8)])
def test_a_head_of_another_shape_is_refused(
    classifier_dir: Path, tmp_path: Path, shape: tuple[int, int]
) -> None:
    folder = copied(classifier_dir, tmp_path / "shape")
    head = {"classifier.weight": torch.zeros(shape), "classifier.bias": torch.zeros(18)}
    save_file(head, folder / "head.safetensors")
    with pytest.raises(CtscribeError, match=r"where \(18, 16\) belongs"):
        Classifier(folder, ignore)


def test_an_encoder_without_pooler_weights_is_refused(classifier_dir: Path, tmp_path: Path) -> None:
    folder = copied(classifier_dir, tmp_path / "bare")
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CtscribeError, match=r"pooler\.dense\.bias"):
        Classifier(folder, ignore)
