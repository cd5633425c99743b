"""`ReportWriter`: a trained run, loaded once, that works on prepared scans or scans in memory.

In: a run folder; then scans, and true reports where they are needed. Out: written reports, cross
entropy of true reports, log-odds of findings, evidence for sentences, and drafts.
"""

import hashlib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float64
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ctscribe.base.about import __version__
from ctscribe.base.error_codes import CODES
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback, sha256_of_file, sha256_of_json
from ctscribe.base.recipe import GenerateConfig, change_recipe
from ctscribe.base.rows import PairRow, StudyRow
from ctscribe.base.runs import recipe_of, weights_sha256
from ctscribe.base.workers import own_gpu
from ctscribe.data.prepare_volume import prepare_volume
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.cells import cell_px
from ctscribe.learn.model.checkpoint import load_model
from ctscribe.learn.model.contrast import (
    choose_volumes,
    prefill_contrast,
    read_volumes,
    write_volumes,
)
from ctscribe.learn.model.cues import cue_of, finding_logits
from ctscribe.learn.model.decoding import Answer, Contrast, write_reports
from ctscribe.learn.model.families import backbone_of, with_markers
from ctscribe.learn.model.feature_store import FeatureStore
from ctscribe.learn.model.features import store_features, store_together
from ctscribe.learn.model.finding_queries import finding_queries_of
from ctscribe.learn.model.qwen import answer_losses
from ctscribe.learn.model.tower import encode_frames
from ctscribe.learn.pairs.collate import collate_pairs
from ctscribe.learn.pairs.dataset import PairDataset, Visual, slice_pair_positions
from ctscribe.scan.dicom_sources import is_dicom
from ctscribe.scan.frames import PreparedVolume, frames_of_lungs, slices_of
from ctscribe.scan.nifti_header import Prefer
from ctscribe.scan.resample import plan_resampling
from ctscribe.scan.volume import CTVolume, note_source, note_unusual
from ctscribe.text.sections import split_report
from ctscribe.write.calibration import (
    Calibration,
    read_calibration,
    read_tuned,
    sentence_confidences,
)
from ctscribe.write.draft import (
    UNREADABLE,
    Draft,
    Provenance,
    SaveDraft,
    SourceKind,
    finding_rows,
    why_not_assessable,
)
from ctscribe.write.draft_check import check_draft
from ctscribe.write.evidence import (
    ForcedReport,
    ReadReport,
    SentenceEvidence,
    explain,
    read_report,
    sentence_rows,
    teacher_force,
)
from ctscribe.write.token_planes import ShownSlices, plane_locator

View = Callable[[StudyRow], Visual]
"""Gives the model's visual input for a study: its own scan, or another one in its place."""


@final
class ReportWriter:
    """The best weights of a run with their tokenizer, recipe and calibration.

    The weights are read when they are first needed, onto the GPU where there is one. Texts are
    written at temperature 0.

    Args:
        save: What `Draft.save` calls; the front door hands over the pages of `show`.

    Raises:
        CtscribeError: ``E_MISSING`` or ``E_RUN`` without a run of this version; when the weights
            are needed, ``E_WEIGHTS`` where they are not complete.
    """

    def __init__(self, run_dir: Path, save: SaveDraft | None = None) -> None:
        self.run_dir = run_dir
        self.recipe = recipe_of(run_dir)
        self._save = save
        self._calibration: Calibration | None = None

    def __repr__(self) -> str:
        millions = sum(weight.numel() for weight in self.qwen.parameters()) / 1e6
        device = self.qwen.lm_head.weight.device
        return (
            f"ReportWriter({self.recipe.model.preset}, {millions:.1f} M weights on {device}, "
            f"{'calibrated' if self.calibration else 'not calibrated'})"
        )

    @cached_property
    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        qwen, tokenizer = load_model(self.run_dir / "best", self.recipe.model.dtype)
        qwen.to(own_gpu() if torch.cuda.is_available() else "cpu").eval()
        return qwen, tokenizer

    @property
    def qwen(self) -> PreTrainedModel:
        """The best weights, for inference."""
        return self._loaded[0]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """As the run was trained with."""
        return self._loaded[1]

    @cached_property
    def weights_sha256(self) -> str:
        """Of the weights that write."""
        return weights_sha256(self.run_dir / "best")

    @cached_property
    def generate(self) -> GenerateConfig:
        """Decoding settings: those `tune` chose for these weights, else the recipe's."""
        return read_tuned(self.run_dir, self.weights_sha256) or self.recipe.generate

    def made_of(self) -> dict[str, Any]:
        """All that decides its reports, except the scans and their cues.

        That is the weights, the decoding settings, and the volumes of contrastive decoding.
        """
        contrasts = self.generate.contrast != "none" and self._volumes_path.exists()
        return {
            "weights_sha256": self.weights_sha256,
            "generate": self.generate.model_dump(mode="json"),
            "held_against_sha256": sha256_of_file(self._volumes_path) if contrasts else None,
        }

    @property
    def calibration(self) -> Calibration | None:
        """What `calibrate` or `tune` fitted for these weights; None before."""
        return self._calibration or read_calibration(self.run_dir, self.weights_sha256)

    def with_overrides(self, overrides: tuple[str, ...]) -> "ReportWriter":
        """The same weights with ``generate.key=value`` settings on top of its own.

        Raises:
            CtscribeError: ``E_RECIPE``.
        """
        if not overrides:
            return self
        so_far = self.recipe.model_copy(update={"generate": self.generate})
        changed = change_recipe(so_far, overrides)
        if changed.model_copy(update={"generate": so_far.generate}) != so_far:
            raise CtscribeError(
                "E_RECIPE",
                "--set must name knobs of generate for a trained run, but is "
                f"{', '.join(overrides)}",
            )
        return self._copy(changed.generate)

    def with_settings(
        self, generate: GenerateConfig | None = None, calibration: Calibration | None = None
    ) -> "ReportWriter":
        """The same weights with other decoding settings, or another calibration."""
        self._loaded  # noqa: B018 - so that both share one copy of the weights
        other = self._copy(generate or self.generate)
        other._calibration = calibration or self._calibration
        return other

    def _copy(self, generate: GenerateConfig) -> "ReportWriter":
        other = copy(self)
        other.__dict__.pop("_contrast", None)
        other.generate = generate
        return other

    def features(
        self,
        prepared: Prepared,
        studies: Sequence[StudyRow],
        *,
        noise: bool = False,
        progress: ProgressCallback = lambda done, total: None,
    ) -> FeatureStore:
        """Stored visual tokens of prepared studies; those that are missing are computed.

        With ``noise`` also tokens of noise volumes of the same sizes. ``progress`` is called with
        (volumes done, all volumes).

        Raises:
            CtscribeError: ``E_PREPARED`` when they were prepared otherwise than for this run.
        """
        prepared.require(self.recipe)
        return store_features(self.qwen, prepared, studies, noise=noise, progress=progress)

    def prepare_contrast(self, prepared: Prepared) -> None:
        """Chooses the volumes of contrastive decoding from the training split, once per run.

        Does nothing without contrastive decoding, or where the volumes are there. Of several
        launched processes each computes a share of the features, and all choose the same volumes.

        Raises:
            CtscribeError: ``E_EMPTY_SPLIT``, ``E_PREPARED``.
        """
        if self.generate.contrast == "none" or self._volumes():
            return
        prepared.require(self.recipe)
        scans, noise = prepared.scans("train"), self.generate.contrast == "noise"
        store = store_together(self.qwen, prepared, scans, noise=noise)
        volumes = choose_volumes(store, scans, self.generate, self.recipe.pairs.seed)
        write_volumes(self._volumes_path, volumes, self._volumes_facts)

    @property
    def _volumes_path(self) -> Path:
        return self.run_dir / f"contrast_{self.generate.contrast}.safetensors"

    @property
    def _volumes_facts(self) -> dict[str, str]:
        number = str(self.generate.num_negatives)
        return {"weights_sha256": self.weights_sha256, "num_negatives": number}

    def _volumes(self) -> list[Visual]:
        path = self._volumes_path
        return read_volumes(path, self._volumes_facts) if path.exists() else []

    @cached_property
    def _contrast(self) -> Contrast | None:
        if self.generate.contrast == "none" or not self.generate.contrast_weight:
            return None
        volumes = self._volumes()
        if not volumes:
            raise CtscribeError(
                "E_MISSING",
                f"{self._volumes_path} must hold the volumes that reports are held against, as "
                "`ctscribe generate` and `tune` write it",
            )
        mode = self.recipe.model.positions
        return prefill_contrast(self.qwen, self.tokenizer, volumes, mode, self.generate)

    def visual(self, scan: PreparedVolume) -> Visual:
        """The model's visual input for a scan in memory.

        Raises:
            CtscribeError: ``E_ENCODER`` for a run that reads another encoder's features.
        """
        self.require_tower()
        slices, height, width, _ = scan.frames.shape
        patch_px = backbone_of(self.qwen).patch_px
        with torch.inference_mode():
            tokens = encode_frames(self.qwen, [torch.from_numpy(scan.frames)]).cpu()
        return Visual(
            grid_thw=(slices // 2, height // patch_px, width // patch_px),
            position_mm=slice_pair_positions(scan.position_mm),
            visual_tokens=tokens,
        )

    def require_tower(self) -> None:
        """Refuses scans outside a prepared folder, whose features another encoder would have made.

        Raises:
            CtscribeError: ``E_ENCODER``.
        """
        if (name := self.recipe.model.encoder) is not None:
            raise CtscribeError(
                "E_ENCODER",
                f"a scan must come with features of the encoder {name}, which this run reads, but "
                "outside of a prepared folder there are none",
            )

    def with_cue(self, visual: Visual) -> Visual:
        """Completes a visual input with the texts its prompt needs: depth markers, and a cue.

        The cue is the list of findings that the prompt states. A run trained with cues
        (``model.cues``) gets it from the finding queries, unless ``visual`` has one already.

        Raises:
            CtscribeError: ``E_CUES`` where a cue is needed, but the run is not calibrated or has no
                finding queries; or where there is a cue, but the run was trained without.
        """
        if visual.cue is not None and not self.recipe.model.cues:
            raise CtscribeError(
                "E_CUES", f"{self.run_dir} must have learned to be told findings, but it has not"
            )
        visual = with_markers(backbone_of(self.qwen), visual, self.recipe.model.positions)
        if visual.cue is not None or not self.recipe.model.cues:
            return visual
        calibration = self.calibration
        if calibration is None or finding_queries_of(self.qwen) is None:
            lacks = "no finding queries" if calibration else "no calibration"
            raise CtscribeError(
                "E_CUES",
                f"{self.run_dir} must be told findings by a table or by its own calibrated "
                f"queries, but there is no table and it has {lacks}",
            )
        probabilities = calibration.findings(self.finding_logits([visual]))[0]
        stated = probabilities >= calibration.cue_threshold
        return replace(visual, cue=cue_of(stated.tolist()))

    def cues(self, prepared: Prepared, studies: Sequence[StudyRow]) -> dict[str, tuple[str, ...]]:
        """The cue of each prepared study by volume name; see `with_cue`."""
        view = self.features(prepared, studies).visual
        return {study.volume_name: self.with_cue(view(study)).cue or () for study in studies}

    def answers(self, visuals: Sequence[Visual]) -> list[Answer]:
        """Writes one report per visual input, as one batch; frames and features cannot be mixed."""
        return write_reports(
            self.qwen,
            self.tokenizer,
            [self.with_cue(visual) for visual in visuals],
            self.recipe.model.positions,
            self.generate.max_new_tokens,
            contrast=self._contrast,
        )

    def losses(self, scans: Sequence[StudyRow], view: View) -> Float64[np.ndarray, "scans"]:
        """Cross entropy of each scan's true report given what ``view`` shows, in nats per token.

        Raises:
            CtscribeError: ``E_TOO_LONG`` or ``E_REPORT``, naming the study.
        """
        names = [scan.volume_name for scan in scans]
        rows = [PairRow(study=name, role="positive", volume=name) for name in names]
        by_name = dict(zip(names, scans, strict=True))
        limit = self.qwen.config.text_config.max_position_embeddings
        shown = PairDataset(
            by_name, rows, self.tokenizer, lambda study, _: self.with_cue(view(study)), limit
        )
        size, pad_id = self.generate.batch_size, int(self.tokenizer.pad_token_id)
        values = []
        with torch.inference_mode():
            for start in range(0, len(shown), size):
                chosen = [shown[i] for i in range(start, min(start + size, len(shown)))]
                batch = collate_pairs(chosen, pad_id)["positive"]
                losses = answer_losses(self.qwen, batch, self.recipe.model.positions)
                values.append(losses.per_sample().double().cpu())
        return torch.cat(values).numpy()

    def finding_logits(self, visuals: Sequence[Visual]) -> Float64[np.ndarray, "scans 18"]:
        """Raw log-odds of the 18 findings by the run's finding queries.

        Raises:
            CtscribeError: ``E_NO_QUERIES`` when it has none.
        """
        return finding_logits(self.qwen, visuals)

    def read(self, findings: str, impression: str) -> ReadReport:
        """Splits a report into sentences and their tokens."""
        return read_report(findings, impression, self.tokenizer)

    def teacher_force(self, report: ReadReport, visual: Visual) -> ForcedReport:
        """`evidence.teacher_force` with the run's model, and the prompt that it writes from."""
        visual, positions = self.with_cue(visual), self.recipe.model.positions
        return teacher_force(self.qwen, self.tokenizer, report, visual, positions)

    def evidence(
        self,
        report: ReadReport,
        visual: Visual,
        shown: ShownSlices,
    ) -> tuple[SentenceEvidence, ...]:
        """The slices that each sentence of a report rests on, whoever wrote the report.

        Args:
            report: From `read`.
            visual: The scan.
            shown: Its frames.
        """
        if not report.sentences:
            return ()
        forced = self.teacher_force(report, visual)
        of_encoder = self.recipe.model.encoder is not None
        locate_plane = plane_locator(visual, shown, cell_px(self.qwen), of_encoder=of_encoder)
        return explain(self.qwen, report, forced, locate_plane)

    def report(
        self,
        source: Path,
        name: str | None = None,
        cue: tuple[str, ...] | None = None,
        *,
        prefer: Prefer | None = None,
        series: str | None = None,
    ) -> Draft:
        """Reads a scan and drafts its report; a scan without a chest CT gets the reason instead.

        Args:
            source: NIfTI file, or folder, zip archive or enhanced file of one DICOM series.
            name: Name of the study in the draft; the source's name and header are never used.
            cue: Findings to state in the prompt; by default those of the finding queries.
            prefer: Which affine of a NIfTI file to believe where two disagree; None refuses.
            series: Number or SeriesInstanceUID, where a folder holds several series.

        Raises:
            CtscribeError: What is wrong with the scan, in one sentence.
        """
        self.require_tower()
        if not source.exists():
            raise CtscribeError("E_MISSING", "the scan must be a file or folder, but there is none")
        kind: SourceKind = "DICOM" if is_dicom(source) else "NIfTI"
        knobs = self.recipe.volume, self.recipe.slices

        def prepare() -> PreparedVolume:
            return prepare_volume(source, *knobs, study="the scan", prefer=prefer, series=series)

        return self._write(prepare, name, kind, cue)

    def write(self, scan: CTVolume, name: str | None = None) -> Draft:
        """Writes a draft of one scan in memory, as `report` does of a file.

        Args:
            scan: HU in RAS orientation, as `front.read_scan` gives it.
            name: Name of the study in the draft; by default a hash of its frames.

        Raises:
            CtscribeError: ``E_ENCODER`` for a run that reads another encoder's features.
        """
        self.require_tower()

        def prepare() -> PreparedVolume:
            prepared = frames_of_lungs(scan, self.recipe.volume, self.recipe.slices)
            notes = note_unusual(scan) | note_source(scan, "memory", scan.orientation)
            warnings = tuple(sorted(notes.codes | set(prepared.warnings)))
            return replace(prepared, warnings=warnings, source_details=notes.details)

        return self._write(prepare, name, "memory")

    def draft(
        self, prepared: Prepared, study: StudyRow, cue: tuple[str, ...] | None = None
    ) -> Draft:
        """Writes the draft of a prepared study from its stored frames, as `report` does of a file.

        Raises:
            CtscribeError: ``E_PREPARED`` when it was prepared otherwise than for this run,
                ``E_MISSING`` where its volume, which the page shows, was not kept, ``E_ENCODER``
                where the run reads another encoder's features and it has none.
        """
        prepared.require(self.recipe)
        volume, slices = self.recipe.volume, self.recipe.slices
        details = prepared.record(study).get("source_details", {})
        # not recorded before version 0.2
        kind = details.get("source", {}).get("kind", "NIfTI")

        def read() -> PreparedVolume:
            stored = prepared.volume(study)
            grid = plan_resampling(stored, stored.spacing_mm)
            shown, slabs, _ = slices_of(grid, study.slice_indices, volume, slices)
            return PreparedVolume(
                grid,
                shown,
                frames=np.array(prepared.frames(study)),
                slice_indices=study.slice_indices,
                position_mm=study.position_mm,
                frame_to_ras=np.array(study.frame_to_ras),
                warnings=study.warnings,
                slabs=slabs,
                reach_z=study.reach_z,
                source_details=details,
            )

        shown = None
        if self.recipe.model.encoder is not None:
            stored = self.features(prepared, [study]).visual(study)
            shown = replace(stored, patient_id=None)
        return self._write(read, study.scan_id, kind, cue, shown)

    def _write(
        self,
        prepare: Callable[[], PreparedVolume],
        name: str | None,
        kind: SourceKind,
        cue: tuple[str, ...] | None = None,
        shown: Visual | None = None,
    ) -> Draft:
        """``shown`` is the visual input; by default the tower computes it from the frames."""
        try:
            scan = prepare()
        except CtscribeError as error:
            if error.code not in UNREADABLE:
                raise
            return self._draft(name or "scan", kind, None, refused=CODES[error.code].meaning)
        study = name or f"scan {hashlib.sha256(scan.frames.tobytes()).hexdigest()[:10]}"
        reason = why_not_assessable(scan.frames, scan.warnings)
        if reason:
            return self._draft(study, kind, scan, refused=reason)
        visual = self.with_cue(replace(shown or self.visual(scan), cue=cue))
        answer = self.answers([visual])[0]
        text = answer.text
        report = self.read(*split_report(text))
        evidence = self.evidence(report, visual, ShownSlices.of_scan(scan))
        findings = finding_rows("\n".join(split_report(text)), visual.cue) if text else ()
        confidences: list[float | None] = [None] * len(evidence)
        calibration = self._sentence_calibration()
        if calibration is not None and evidence:
            probabilities = calibration.findings(self.finding_logits([visual]))[0].tolist()
            scores = [(each.log_prob, each.num_tokens) for each in evidence]
            confidences = sentence_confidences(report.sentences, scores, probabilities, calibration)
            findings = tuple(
                replace(row, probability=probability)
                for row, probability in zip(findings, probabilities, strict=True)
            )
        sentences = sentence_rows(evidence, confidences, scan.slice_indices)
        draft = self._draft(study, kind, scan)
        return replace(
            draft,
            text=text,
            sentences=sentences,
            findings=findings,
            finished=answer.finished,
            self_check=check_draft(text, findings, calibration, finished=answer.finished),
        )

    def _sentence_calibration(self) -> Calibration | None:
        """The run's calibration, where it covers sentences and the run has finding queries."""
        fitted = self.calibration
        has_queries = finding_queries_of(self.qwen) is not None
        return fitted if fitted is not None and fitted.sentence_slopes and has_queries else None

    def _draft(
        self, study: str, kind: SourceKind, scan: PreparedVolume | None, refused: str | None = None
    ) -> Draft:
        """A draft without text; ``refused`` is the reason why it has none."""
        provenance = Provenance(
            ctscribe_version=__version__,
            model_preset=self.recipe.model.preset,
            weights_sha256=self.weights_sha256,
            recipe_sha256=sha256_of_json(self.recipe.as_asked()),
            created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
        reason = refused and refused[0].lower() + refused[1:].rstrip(".")
        return Draft(study, kind, scan, self.recipe, provenance, self._save, not_assessable=reason)
