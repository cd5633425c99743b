"""From a phantom to a scored report, in about a minute on two cores.

`marimo edit docs/tour.py` opens it as a notebook; `python docs/tour.py` runs it through.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(app_title="A tour of ctscribe")


@app.cell(hide_code=True)
def _():
    import marimo as mo

    mo.md(
        """
        # A tour of ctscribe

        Sixteen synthetic patients, a model of two million parameters and six updates: enough to
        see every stage, far too little to write a report worth reading. `make demo` trains the
        same model on 800 patients. **Research use only. Not a medical device. Do not use for
        clinical decisions.**
        """
    )
    return (mo,)


@app.cell
def _():
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from ctscribe.base.recipe import read_recipe

    keeper = TemporaryDirectory()  # removed when Python ends
    folder = Path(keeper.name)
    recipe = read_recipe(
        "tiny",
        (
            "phantom.num_train_patients=12",
            "phantom.num_valid_patients=4",
            "train.epochs=2",
            "generate.max_new_tokens=60",
            "evaluate.resamples=200",
        ),
    )
    return folder, recipe


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Data: scans with reports, laid out as CT-RATE has them, and what training reads
    """)
    return


@app.cell
def _(folder, recipe):
    import ctscribe as ct
    from ctscribe.data.ct_rate import CtRateTree
    from ctscribe.data.prepare import prepare
    from ctscribe.phantom.dataset import write_dataset

    write_dataset(folder / "data", recipe.phantom)
    prepared = ct.Prepared(folder / "prepared")
    prepare(
        folder / "data",
        prepared.folder,
        recipe.volume,
        recipe.slices,
        recipe.splits,
        keep="slices",
    )
    study = prepared.scans("test")[0]
    scan = ct.read_scan(CtRateTree(folder / "data").volume_path(study.volume_name, "v2"))
    scan
    return ct, prepared, scan, study


@app.cell
def _(mo, prepared, study):
    from PIL import Image

    frames = prepared.frames(study)  # (slices, height, width, windows), uint8
    mo.hstack([mo.image(Image.fromarray(frame), width=112) for frame in frames[1:9:2]])
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Learning: each report with its own scan, then with another patient's

    The stage is a command, as all of them are. Here it has to be: transformers' `Trainer`
    wants IPython wherever marimo is imported.
    """)
    return


@app.cell
def _(folder, prepared, recipe):
    import subprocess
    import sys

    from ctscribe.base.files import read_json
    from ctscribe.learn.pairs.build import build_training_pairs
    from ctscribe.learn.warm_up import shipped_start

    build_training_pairs(prepared, folder, recipe.pairs)
    (folder / "recipe.yaml").write_text(recipe.model_dump_json(), encoding="utf-8")
    command = (
        f"train {folder}/run --recipe {folder}/recipe.yaml --prepared {prepared.folder} "
        f"--pairs {folder}/pairs.jsonl --start {shipped_start(recipe)}"
    )
    subprocess.run([sys.executable, "-m", "ctscribe.cli", *command.split()], check=True)
    trained = read_json(folder / "run" / "result.json")
    trained
    return (trained,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Writing: one scan, and what each sentence rests on
    """)
    return


@app.cell
def _(ct, folder, scan, trained):
    assert trained["num_steps"]  # so that this cell comes after the training
    writer = ct.load_writer(folder / "run")
    draft = writer.write(scan, name="a test patient")
    draft.save(folder / "draft.html")
    draft
    return draft, writer


@app.cell
def _(draft, mo, study):
    mo.md(f"**Written:** {draft.text}\n\n**True:** {study.findings}")
    return


@app.cell
def _(draft):
    draft.sentences[:3]
    return


@app.cell
def _(ct, study):
    told = ct.find_findings(study.findings)
    {finding: status for finding, status in told.items() if status != "not mentioned"}
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Measuring: the test split, beside what blind systems score
    """)
    return


@app.cell
def _(ct, folder, prepared, recipe, writer):
    from ctscribe.write.generate import generate

    rows = generate(writer, prepared, "test", folder / "predictions.jsonl")
    scores = ct.score(
        predictions=rows,
        references=prepared.split("test"),
        training=prepared.split("train"),
        config=recipe.evaluate,
    )
    scores
    return (scores,)


@app.cell
def _(mo, scores):
    mo.md(scores.table())
    return


if __name__ == "__main__":
    app.run()
