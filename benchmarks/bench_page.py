"""The page of one scan of 512 × 512 × 300: size, time to make, to show and to change a slice.

Beside it the same scan in NiiVue's single file, in the same browser: ``make bench NAME=page
ARGS="SERIES NIIVUE_UMD_JS"`` takes a DICOM series, whose slices are stacked with their mirror
image to 300, and NiiVue's ``dist/niivue.umd.js`` from ``npm pack @niivue/niivue``. Without the
second only our page is measured. Without a GPU the browser runs NiiVue's WebGL in software.
"""

import base64
import html
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import nibabel as nib
import numpy as np
from playwright.sync_api import Page, sync_playwright

from benchmarks.harness import cores, record
from ctscribe.base.recipe import read_recipe
from ctscribe.scan.frames import frames_of_lungs
from ctscribe.scan.read import read_volume
from ctscribe.scan.volume import CTVolume
from ctscribe.show.report import save_draft
from ctscribe.write.draft import Draft, Provenance

SLICES, CHANGES = 300, 20
_OURS = """async () => {
  const canvas = document.querySelector("canvas");
  const began = performance.now();
  canvas.dispatchEvent(new WheelEvent("wheel", {deltaY: 100, bubbles: true, cancelable: true}));
  await new Promise(resume => requestAnimationFrame(resume));
  canvas.getContext("2d").getImageData(0, 0, 1, 1);
  return performance.now() - began;
}"""
_THEIRS = """async () => {
  const began = performance.now();
  nv.moveCrosshairInVox(0, 0, 1);
  await new Promise(resume => requestAnimationFrame(resume));
  nv.gl.readPixels(0, 0, 1, 1, nv.gl.RGBA, nv.gl.UNSIGNED_BYTE, new Uint8Array(4));
  return performance.now() - began;
}"""
_NIIVUE = """<!DOCTYPE html><meta charset="utf-8">
<canvas id="gl" width="1000" height="700"></canvas>
<script>{code}</script>
<script id="scan" type="text/plain">{scan}</script>
<script>
(async () => {{
  const binary = atob(document.getElementById("scan").textContent);
  const bytes = Uint8Array.from(binary, sign => sign.charCodeAt(0));
  window.nv = new niivue.Niivue({{multiplanarShowRender: 0}}); // three planes alone, as ours
  await nv.attachTo("gl");
  await nv.loadFromArrayBuffer(bytes.buffer, "scan.nii.gz");
  nv.drawScene();
  nv.gl.readPixels(0, 0, 1, 1, nv.gl.RGBA, nv.gl.UNSIGNED_BYTE, new Uint8Array(4));
  document.documentElement.dataset.shown = "";
}})();
</script>"""


def stacked(series: Path) -> CTVolume:
    """The series, then its mirror image, and so on to `SLICES`."""
    volume, _ = read_volume(series, study="the scan")
    there_and_back = np.concatenate([volume.hu, volume.hu[:, :, ::-1]], axis=2)
    times = -(-SLICES // there_and_back.shape[2])
    hu = np.concatenate([there_and_back] * times, axis=2)[:, :, :SLICES]
    affine = volume.affine.copy()
    affine[:3, 2] /= volume.spacing_mm[2]  # slices of 1 mm
    return CTVolume(np.asfortranarray(hu), affine)


def our_page(volume: CTVolume, path: Path) -> float:
    """Seconds beyond what the model would take."""
    recipe = read_recipe("tiny")
    prepared = frames_of_lungs(volume, recipe.volume, recipe.slices)
    made_by = Provenance("0", "tiny", "a" * 64, "b" * 64, "2026-01-01 00:00 UTC")
    draft = Draft("bench", "DICOM", prepared, recipe, made_by, None, "Findings: None.")
    began = time.perf_counter()
    save_draft(draft, path)
    return time.perf_counter() - began


def niivue_page(volume: CTVolume, code: Path, path: Path) -> float:
    began = time.perf_counter()
    scan = path.with_suffix(".nii.gz")
    nib.save(nib.Nifti1Image(volume.hu, volume.affine), scan)
    text = base64.b64encode(scan.read_bytes()).decode()
    page = _NIIVUE.format(
        code=code.read_text(encoding="utf-8").replace("</script", "<\\/script"), scan=text
    )
    path.write_text(page, encoding="utf-8")
    return time.perf_counter() - began


def shown(page: Page, path: Path, change: str, first: str, loaded: str) -> dict[str, float]:
    """Seconds to the first picture, to all of it, and milliseconds of a change of slice.

    ``first`` and ``loaded`` are what the page then has, as CSS selects it.
    """
    page.set_default_timeout(300_000)
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_selector(first, state="attached")
    first_s = page.evaluate("performance.now()") / 1000
    page.wait_for_selector(loaded, state="attached")
    all_s = page.evaluate("performance.now()") / 1000
    changes = [page.evaluate(change) for _ in range(CHANGES)]
    return {
        "megabytes": round(path.stat().st_size / 1e6, 2),
        "first_picture_s": round(first_s, 2),
        "whole_scan_s": round(all_s, 2),
        "slice_change_ms_median": round(median(changes), 1),
    }


def main() -> None:
    volume = stacked(Path(sys.argv[1]))
    result: dict[str, Any] = {
        "shape_xyz": volume.shape_xyz,
        "cores": cores(),
        "load_before": round(os.getloadavg()[0], 1),
    }
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        chromium = play.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--enable-unsafe-swiftshader"],
        )
        path, began = Path(folder) / "ours.html", time.process_time()
        made_s = our_page(volume, path)
        made = {"made_s": round(made_s, 2), "made_cpu_s": round(time.process_time() - began, 2)}
        parts = ".viewer[data-voxel]", ".viewer[data-loaded]"
        found = shown(chromium.new_page(), path, _OURS, *parts)
        lost = re.search(r"scan's by ([0-9]+) HU", html.unescape(path.read_text(encoding="utf-8")))
        result["ours"] = {**made, **found, "error_hu": int(lost[1]) if lost else 0}
        if len(sys.argv) > 2:
            path = Path(folder) / "niivue.html"
            made = {"made_s": round(niivue_page(volume, Path(sys.argv[2]), path), 2)}
            found = shown(chromium.new_page(), path, _THEIRS, *["html[data-shown]"] * 2)
            result["niivue"] = {**made, **found}
    record("page", result)


if __name__ == "__main__":
    main()
