from ctscribe.write.evidence import PairEvidence, SentenceEvidence, sentence_rows


def evidence(findings: tuple[str, ...], *, particular: bool) -> SentenceEvidence:
    first = PairEvidence(
        pair=1,
        slice_indices=(30, 20),
        position_mm=(5.0, -5.0),
        drop=2.5,
        attention=0.8,
        box_px=(7, 14, 21, 28),
    )
    other = first.model_copy(update={"pair": 2, "slice_indices": (10, 0), "drop": 0.1})
    return SentenceEvidence(
        section="findings",
        text="A nodule.",
        findings=findings,
        log_prob=-1.0,
        num_tokens=3,
        particular=particular,
        pairs=(first, other),
    )


def test_the_best_pairs_slices_are_named_as_the_report_counts_them() -> None:
    (row,) = sentence_rows([evidence((), particular=True)], [0.75])
    assert [(s.number, s.slice_index, s.position_mm) for s in row.slices] == [
        (3, 30, 5.0),
        (4, 20, -5.0),
    ]
    assert {s.box_px for s in row.slices} == {(7, 14, 21, 28)}
    assert (row.text, row.boilerplate, row.drop, row.confidence) == ("A nodule.", False, 2.5, 0.75)
    assert repr(row) == "SentenceRow('A nodule.', slices 3 and 4, 0.75)"


def test_boilerplate_names_no_slice_and_a_finding_is_never_boilerplate() -> None:
    stock, stated = sentence_rows(
        [evidence((), particular=False), evidence(("Lung nodule",), particular=False)],
        [None, None],
    )
    assert (stock.boilerplate, stock.slices) == (True, ())
    assert repr(stock) == "SentenceRow('A nodule.', boilerplate)"
    assert not stated.boilerplate
    assert len(stated.slices) == 2
