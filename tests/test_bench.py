"""Engines side by side: timed, or missing with a reason; ties have no winner."""

import json
import math
import sys
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leancnn import cli, models
from leancnn.bench import Missing, Row, bench, summary, to_json, untrained, winner
from leancnn.errors import MismatchError, UnknownNameError

ROW = Row(
    model="a",
    engine="c",
    rounds_us=(9.0, 10.0, 11.0),
    p95_us=12.0,
    share_of_peak=0.5,
    macs=1,
    peak_mb=1.0,
    artifact_bytes=1,
    startup_s=0.1,
    difference=0.0,
)


def test_a_disturbed_core_has_no_winner_and_says_why():
    rows = [replace(ROW, disturbed=("the core slept",)), replace(ROW, engine="d", rounds_us=(99,))]
    assert winner(rows) is None
    assert summary(rows) == "no winner, the core was disturbed: the core slept"


TURN = st.floats(1.0, 1e5)


@given(rounds=st.lists(st.tuples(TURN, TURN, st.floats(0.1, 10.0)), min_size=1, max_size=9))
def test_a_machine_that_changes_its_speed_between_rounds_changes_no_ratio(rounds):
    ours, theirs, speeds = (np.array(part) for part in zip(*rounds, strict=True))
    calm = [replace(ROW, rounds_us=tuple(each)) for each in (ours, theirs)]
    moved = [replace(ROW, rounds_us=tuple(each * speeds)) for each in (ours, theirs)]
    told = calm[0].times_faster(calm[1])
    assert moved[0].times_faster(moved[1]) == pytest.approx(told)
    assert told[1] <= told[0] <= told[2]
    back = calm[1].times_faster(calm[0])
    assert back[0] * told[0] >= 1 - 1e-9, "medians of ratios and of their inverses: AM-GM"


def test_rounds_of_another_day_are_not_compared():
    with pytest.raises(MismatchError, match="c has 3 rounds, torch 1"):
        ROW.times_faster(replace(ROW, engine="torch", rounds_us=(1.0,)))


def test_an_unknown_engine_is_named():
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        bench([], engines=["onnx-runtime"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rounds": 0}, "`rounds` is 1 or more, not 0"),
        ({"seconds": 0}, "`seconds` is above 0 .* not 0"),
        ({"seconds": float("nan")}, "not nan"),
        ({"core": 10**6}, "no core 1000000 for this process"),
    ],
)
def test_what_cannot_be_timed_is_refused(options, text):
    with pytest.raises(MismatchError, match=text):
        bench([], **options)


def test_untrained_networks_have_activations_that_are_alive():
    import torch

    network = untrained("henet_r2")
    images = torch.randint(0, 256, (2, 31, 31, 3), dtype=torch.uint8)
    with torch.no_grad():
        logits = network(images)
    assert logits.isfinite().all()
    assert logits.std() > 1e-4


@pytest.mark.slow
def test_an_engine_whose_answers_are_no_numbers_is_not_timed(monkeypatch):
    monkeypatch.setattr(import_module("leancnn.parity"), "difference", lambda *answers: math.nan)
    rows, missing = bench([untrained("henet_r2")], engines=["torch"], rounds=1, seconds=0.01)
    assert not rows
    assert "henet_r2 on torch: its logits differ by nan of their scale" in str(missing[0])


def test_every_row_has_its_figures_and_every_gap_a_reason():
    value = to_json([ROW], [Missing("b", "c", "no compiler")])
    assert value["winners"] == {"a": "c"}
    assert value["rows"][0]["median_us"] == 10.0
    (gap,) = value["missing"]
    assert (gap["model"], gap["engine"], gap["reason"]) == ("b", "c", "no compiler")
    json.dumps(value, allow_nan=False)


class Gone:
    """In the place of a module: not installed."""

    def find_spec(self, name, path=None, target=None):
        if name in ("ncnn", "pnnx"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


@pytest.fixture
def without_ncnn(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [Gone(), *sys.meta_path])
    for name in [name for name in sys.modules if name.split(".")[0] in ("ncnn", "pnnx")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.slow
@pytest.mark.usefixtures("without_ncnn")
@pytest.mark.parametrize("asked", ["ncnn", "ncnn,torch"])
def test_an_engine_that_was_asked_for_and_is_not_there_is_a_row_and_status_1(asked, capsys):
    words = [
        "bench",
        "--model",
        "henet_r2",
        "--engines",
        asked,
        "--rounds",
        "1",
        "--seconds",
        "0.01",
    ]
    assert cli.main(words) == 1
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "ncnn" in line]
    assert row.startswith("henet_r2")
    assert "pip install 'leancnn[ncnn]'" in row
    assert cli.main([*words, "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert [each["engine"] for each in value["missing"]] == ["ncnn"]


@pytest.mark.slow
@pytest.mark.usefixtures("without_ncnn")
def test_an_engine_that_nobody_asked_for_and_is_not_there_is_a_row_and_status_0(
    capsys, monkeypatch
):
    engines = {"torch": "torch", "ncnn": "ncnn"}
    monkeypatch.setattr(import_module("leancnn.bench"), "ENGINES", engines)
    words = ["bench", "--model", "henet_r2", "--rounds", "1", "--seconds", "0.01"]
    assert cli.main(words) == 0
    assert "pip install 'leancnn[ncnn]'" in capsys.readouterr().out


class Timed:
    """A worker with a clock of its own: 2 ms a call, or 1 ms for the loop of 3 million MACs."""

    macs, startup, memory, probabilities = 3_000_000, 0.25, 4.5, None

    def __init__(self, target, artifact, images, core):
        self.target = target
        self.logits = self.expected

    def time(self, seconds):
        return [0.004, 0.002, 0.002] if self.target != "peak" else [0.005, 0.001, 0.003]

    def close(self):
        return self.memory


def test_the_share_of_peak_is_our_rate_over_that_of_the_loop(monkeypatch):
    """MACs a second of a median call, over MACs a second of the loop's fastest one."""
    network = untrained("resnet8")
    images = import_module("leancnn.bench").trial_images(network, 4)
    with torch.inference_mode():
        monkeypatch.setattr(Timed, "expected", network(torch.from_numpy(images)).tolist(), False)
    monkeypatch.setattr(import_module("leancnn.bench"), "Worker", Timed)
    (row,), missing = bench([network], engines=["torch"], rounds=3)
    assert not missing
    assert row.share_of_peak == pytest.approx((row.macs / 0.002) / (3_000_000 / 0.001))
    assert row.macs == models.card("resnet8").macs
    assert row.rounds_us == pytest.approx([2000] * 3)
    assert (row.peak_mb, row.startup_s) == (4.5, 0.25)


@pytest.mark.long
def test_other_precisions_are_told_by_how_often_they_agree():
    network = untrained("resnet8")
    rows, missing = bench([network], engines=["c"], rounds=1, seconds=0.001, precision="any")
    assert not missing
    assert [(row.engine, row.agreement, row.accuracy) for row in rows] == [("c", 1.0, None)]
    assert to_json(rows, missing)["rows"][0]["agreement"] == 1.0
