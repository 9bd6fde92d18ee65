"""What commands leave on disk, made without training: of any classes, paths and words."""

from pathlib import Path

import numpy as np

from leancnn import runs
from leancnn.recipes import get
from leancnn.safe_files import save_pair, write_checked, write_json

CLASSES = ("cat", "dog", "owl")


def made_run(folder, *, classes=CLASSES, data="photos", word="henet_r2", epochs=4, seed=0):
    """A finished run of `epochs` with two evaluations; `word` stands wherever text is free."""
    random = np.random.default_rng(seed)
    classes = list(classes)
    recipe = get("digits").changed(epochs=epochs).to_json()
    machine = {"torch": "2", "numpy": "2", "processor": word, "device": "cpu"}
    preprocessing = {"size": [31, 31], "scale": [32, 32], "channels": 3, "fit": "cover"}
    plan = {
        "data": data,
        "data_sha256": {"train": "a" * 64},
        "val_share": 0.1,
        "classes": classes,
        "images": 100,
        "model": word,
        "arguments": {},
        "recipe": {**recipe, "source": word},
        "preprocessing": preprocessing,
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "seed": 0,
        "engine": "torch",
        "engine_why": word,
        "precision": "fp32",
        "threads": 2,
        "processes": 1,
        "machine": machine,
        "save_every_s": 60.0,
        "save_every_steps": None,
    }
    counts = {part: dict.fromkeys(classes, n) for part, n in (("train", 40), ("test", 10))}
    told = {
        "format": 2,
        "plan": plan,
        "machine": {**runs.machine(), **machine},
        "data": {"source": data, "kind": word, "classes": classes, "counts": counts},
        "notes": [word],
        "began": "2026-01-01T00:00:00Z",
        "at": "2026-01-01T00:10:00Z",
        "state": "finished",
        "result": {"epochs": epochs},
    }
    write_checked(folder / "run.json", told)
    write_checked(folder / "recipe.json", plan["recipe"])
    runs.write_metrics(folder, [_epoch(number) for number in range(1, epochs + 1)])
    made_network(
        folder / "best", classes=classes, word=word, preprocessing=preprocessing, data=data
    )
    for which in ("best", "last"):
        entry = {"which": which, "data": data, "sha256": "b" * 64, "images": 30, "accuracy": 0.8}
        runs.add_evaluation(folder, entry)
        made_evaluation(folder, which, classes=classes, data=data, word=word, random=random)
    return folder


def _epoch(number):
    share = 1 - 1 / (number + 1)
    row = {"epoch": number, "step": 10 * number, "lr": 0.1, "train_loss": 1 / number}
    row |= {"train_accuracy": share, "val_loss": 1.2 / number, "val_accuracy": share}
    return {**row, "images": 100, "images_per_s": 50.0, "train_seconds": 2.0, "seconds": 2.1}


def made_network(
    folder, *, classes=CLASSES, word="henet_r2", preprocessing=None, data="photos", more=None
):
    """A saved network whose weights are four numbers."""
    manifest = {
        "format": 1,
        "name": word,
        "arguments": {},
        "classes": list(classes),
        "preprocessing": preprocessing or {"size": [31, 31], "channels": 3},
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "counts": {"trainable": 68_194, "stored": 70_000},
        "made": {"data": data, "val_accuracy": 0.75},
        **(more or {}),
    }
    tensors = {"w": np.zeros(4, np.float32)}
    save_pair(folder / "network.json", folder / "weights.safetensors", manifest, tensors)
    return folder


def made_evaluation(folder, which, *, classes, data, word, random):
    """evaluation-WHICH.json: each class taken twice for the next, with a picture of each."""
    many = len(classes)
    confusion = (8 * np.eye(many, dtype=int) + 2 * np.roll(np.eye(many, dtype=int), 1, 1)).tolist()
    pictures = [
        {
            "file": f"{word}-{place}.png",
            "true": name,
            "answer": classes[(place + 1) % many],
            "probability": 0.9,
        }
        for place, name in enumerate(classes[:6])
    ]
    figures = {"images": 10, "precision": 0.8, "recall": 0.8, "f1": 0.8}
    told = {
        "network": word,
        "which": which,
        "data": data,
        "images": 10 * many,
        "correct": 8 * many,
        "accuracy": 0.8,
        "low": 0.7,
        "high": 0.88,
        "loss": 0.5,
        "classes": [{"name": name, **figures} for name in classes],
        "confusion": confusion,
        "uses": 2,
        "all_uses": 2,
        "changed": True,
        "recut": True,
        "skipped": 1,
        "copies": [word],
        "unfinished": word,
        "pictures": pictures,
    }
    shape = (len(pictures), 9, 7, 3)
    arrays = {"pictures": random.integers(0, 256, shape, np.uint8)}
    path = folder / f"evaluation-{which}.json"
    save_pair(path, path.with_suffix(".safetensors"), told, arrays)


def made_check(path, *, classes=CLASSES, source="photos", word="twice"):
    finding = {"kind": word, "text": word, "files": [word]}
    counts = {part: dict.fromkeys(classes, 20) for part in ("train", "test")}
    told = {"ok": False, "source": source, "kind": "folder", "counts": counts}
    told |= {"modes": {word: 60}, "sizes": {"31×31": 60}}
    write_json(path, {**told, "problems": [finding], "notes": [finding] * 30})


def made_bench(path, *, word="henet_r2"):
    rows = [
        {
            "model": word,
            "engine": engine,
            "median_us": middle,
            "low_us": middle - 1,
            "high_us": middle + 2,
            "p95_us": middle + 5,
            "share_of_peak": 0.5,
            "peak_mb": None,
            "artifact_bytes": 300_000,
            "startup_s": 0.1,
            "difference": 1e-6,
        }
        for engine, middle in (("c", 80.0), ("onnxruntime", 300.0), (word, 5000.0))
    ]
    missing = [{"model": word, "engine": "ncnn", "reason": word}]
    told = {"rows": rows, "winners": {word: "c"}, "summaries": {word: word}, "missing": missing}
    write_json(path, told)


def made_plan(path, *, word="layer1", importance=True):
    layer = {"path": word, "before": 4, "kept": [0, 2]}
    if importance:
        layer["importance"] = [0.5, 0.01, 0.4, 0.02]
    costs = {"trainable": 1000, "frozen": 0, "macs": 2000, "bytes": 4000}
    told = {
        "network": word,
        "criterion": word,
        "goal": {"keep": 0.5},
        "layers": [layer],
        "before": costs,
        "after": {key: value // 2 for key, value in costs.items()},
        "microseconds": [100.0, 60.0],
        "notes": [word],
        "reconstructed": False,
    }
    write_checked(path, told)


def made_quantization(path, *, word="henet_r2"):
    told = {"network": word, "out": word, "images": 512, "seed": 0, "accuracy": 0.9}
    told |= {"accuracy_int8": 0.89, "val_images": 100, "bytes": 4000, "bytes_int8": 1000}
    told |= {"us": 100.0, "us_int8": 50.0, "layers": [[word, 0.1]], "clipped": [[word, 0.02]]}
    write_checked(path, {**told, "points_lost": 1.0})


def made_comparison(folder, *, word="l1"):
    row = {"network": word, "kind": "criterion", "runs": 1, "before %": 50.0, "after %": 80.0}
    row |= {"± %": "", "trainable": 1000, "MACs": 2000, "µs": 50.0, "epochs": 4}
    whole = {**row, "network": "whole", "kind": "whole", "MACs": 4000, "before %": ""}
    told = {"folder": str(folder), "goal": {"keep": 0.5}, "images": 30, "conclusion": word}
    told |= {"means": [whole, row], "rows": [], "left_out": [word], "picture": "x.png"}
    write_checked(folder / "comparison.json", told)
    return folder


def made_eeg(folder, *, word="person"):
    """An EEG run with an evaluation and a session."""
    about = {"format": 1, "leancnn": "0.1.0", "data": word, "split": word, "window": 2.0}
    about |= {"decoder": word, "seed": 0, "fs": 250.0, "channels": [word], "trials": 40}
    arrays = {"weights": np.zeros(2, np.float32)}
    manifest = {**about, "people": 4}
    save_pair(folder / "decoder.json", folder / "decoder.safetensors", manifest, arrays)
    told = {"decoder": word, "split": word, "window": 2.0, "targets": [10.0, 12.0], "trials": 40}
    told |= {"chance": 0.5, "accuracy": 0.9, "interval": [0.8, 0.95], "per person": {word: 0.9}}
    told["baselines"] = [{"name": word, "accuracy": 0.8, "won": 5, "lost": 1, "p": 0.2}]
    told |= {"bits per minute": 20.0, "log loss": 0.3, "calibration error": 0.02}
    told["undecided"] = [{"threshold": 0.5, "decided": 0.9, "accuracy": None}]
    told["shuffled"] = {"repeats": 2, "mean": 0.5, "least": 0.4, "most": 0.6}
    write_json(folder / "evaluation.json", told)
    made_session(folder / "session.json", word=word)
    check = {"source": word, "fit": False, "problems": [word], "warnings": [word]}
    write_json(folder / "check.json", check)
    return folder


def made_session(path, *, word="fbcca"):
    clock = {"p50": 1.0, "p95": 2.0, "p99": 3.0, "max": 4.0}
    told = {
        "source": word,
        "decoder": word,
        "decisions": 10,
        "decided": 8,
        "asked": 8,
        "correct": 7,
    }
    told |= {"no decision": {word: 2}, "latency ms": clock, "compute ms": None, "seconds": 20.0}
    write_json(path, {**told, "ended": word})


def made_search(folder, *, word="henet_r3", data="photos", ended=True):
    """A search of two trials, the second of which failed; `ended` with a front of one."""
    plan = {"data": data, "data_sha256": {}, "classes": [word], "images": 90, "val_images": 10}
    plan |= {"val_share": 0.1, "budget": {"microseconds": 150.0, "bytes": None, "macs": 8e6}}
    plan |= {
        "asked": {},
        "seed": 0,
        "rungs": [1, 3],
        "found": [{word: 1}],
        "latency_model": {word: 1.0, "factors": {"pointwise": 0.125}},
    }
    write_checked(
        folder / "search.json", {**plan, "machine": {word: word}, "tested": True, "format": 1}
    )
    for number, error in enumerate(("", word)):
        rung = {"number": number, "epochs": 3, "accuracy": 0.9 - number, "seconds": 5.0}
        rung |= {"accuracy": 0.9 * (not error), "error": error, "lost": False}
        write_checked(folder / "trials" / f"{number:04d}" / "rung-3.json", rung)
    made_run(folder / "trials" / "0000", word=word, data=data, epochs=1)
    member = {"trial": 0, "network": word, "change": word, "epochs": 3, "val_accuracy": 0.9}
    member |= {"microseconds": 100.0, "low_us": 99.0, "high_us": 102.0, "predicted_us": 105.0}
    member |= {"bytes": 300_000, "macs": 2_000_000, "disturbed": [word], "test_accuracy": 0.85}
    member |= {"test_low": 0.8, "test_high": 0.9}
    told = {"folder": str(folder), "members": [member], "winner": member, "reached": True}
    told |= {"sentence": word, "trials": 1, "failed": 1, "spent": 3600.0, "budget": plan["budget"]}
    if ended:
        write_checked(folder / "front.json", told)
    return folder


def everything(folder, *, classes=CLASSES, data="photos", word="word", name="run"):
    """One of each kind of record below `folder`; returns their paths."""
    run = made_run(folder / name, classes=classes, data=data, word=word)
    made_check(run / "check.json", classes=classes, source=data, word=word)
    made_bench(run / "bench.json", word=word)
    made_plan(run / "plan.json", word=word)
    int8 = made_network(folder / f"{name}-int8", classes=classes, word=word, data=data)
    made_quantization(int8 / "quantization.json", word=word)
    comparison = made_comparison(folder / f"{name}-compared", word=word)
    eeg = made_eeg(folder / f"{name}-eeg", word=word)
    search = made_search(folder / f"{name}-search", word=word, data=data)
    session, rows = folder / "session.json", folder / "rows.json"
    made_session(session, word=word)
    result = {"title": word, "command": word, "machine": {word: word}, "rows": [{word: word}]}
    write_json(rows, result)
    return [Path(path) for path in (run, int8, comparison, eeg, search, session, rows)]
