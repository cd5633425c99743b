from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
)

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json, write_json
from ctscribe.measure.classifier import Classifier
from ctscribe.text.findings import FINDINGS
from tests.refusals import refusal

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


SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
SMALL |= {"intermediate_size": 16, "initializer_range": 1.0, "max_position_embeddings": 514}
LABELS = {"num_labels": 18, "pad_token_id": 1}


def saved_whole(model: PreTrainedModel, classifier_dir: Path, folder: Path) -> Path:
    """A model for sequence classification as transformers saves it, with its tokenizer."""
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(classifier_dir).save_pretrained(folder)
    return folder


def sequence_classifier(kind: str) -> PreTrainedModel:
    torch.manual_seed(1)
    if kind == "bert":
        return BertForSequenceClassification(BertConfig(**SMALL, **LABELS)).eval()
    if kind == "roberta":
        return RobertaForSequenceClassification(RobertaConfig(**SMALL, **LABELS)).eval()
    small = {"vocab_size": 40, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
    config = DistilBertConfig(**small, initializer_range=1.0, **LABELS)
    return DistilBertForSequenceClassification(config).eval()


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_models_for_sequence_classification_are_read_as_they_are(
    classifier_dir: Path, tmp_path: Path, kind: str
) -> None:
    model = sequence_classifier(kind)
    folder = saved_whole(model, classifier_dir, tmp_path / kind)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        rows = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in TEXTS]
    found = Classifier(folder, ignore).probabilities(TEXTS)
    np.testing.assert_allclose(found, torch.sigmoid(torch.stack(rows)).numpy(), atol=1e-5)


def test_an_encoder_with_ct_clips_head_in_the_same_file_is_read(
    classifier_dir: Path, tmp_path: Path
) -> None:
    # RadBERT is a RoBERTa, but CT-CLIP's head is a linear layer on its pooled output.
    folder = copied(classifier_dir, tmp_path / "one")
    encoder = load_file(folder / "model.safetensors")
    tensors = {f"roberta.{name}": tensor for name, tensor in encoder.items()}
    tensors |= load_file(folder / "head.safetensors")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "head.safetensors").unlink()
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"id2label": {n: f"LABEL_{n}" for n in range(18)}})
    expected = Classifier(classifier_dir, ignore).probabilities(TEXTS)
    np.testing.assert_allclose(Classifier(folder, ignore).probabilities(TEXTS), expected, atol=1e-6)


def test_labels_with_names_are_put_in_order_and_others_refused(
    classifier_dir: Path, tmp_path: Path
) -> None:
    folder = saved_whole(sequence_classifier("bert"), classifier_dir, tmp_path / "named")
    plain = Classifier(folder, ignore)
    config = read_json(folder / "config.json")
    names = [finding.upper() for finding in reversed(FINDINGS)]

    def rename(names: list[str]) -> None:
        labels = {"id2label": {str(n): name for n, name in enumerate(names)}}
        inverse = {"label2id": {name: n for n, name in enumerate(names)}}
        write_json(folder / "config.json", config | labels | inverse)

    rename(names)
    named = Classifier(folder, ignore)
    reverse = plain.probabilities(TEXTS)[:, ::-1]
    np.testing.assert_allclose(named.probabilities(TEXTS), reverse, atol=1e-6)
    assert named.name != plain.name
    rename(["Pneumothorax", *names[1:]])
    with refusal("E_WEIGHTS", f"none of the labels in config.json is {FINDINGS[-1]}"):
        Classifier(folder, ignore)
    rename([*names, "No finding"])
    with refusal("E_WEIGHTS"):
        Classifier(folder, ignore)
