"""`leancnn quantize`: what it measures, what it writes, what it refuses."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import leancnn
from leancnn import cli, printed, recipes, weights
from leancnn.compiler.graph import Conv
from leancnn.compiler.integers import QFloat, QGather
from leancnn.errors import DataError, LeanCNNError, MismatchError
from leancnn.quantize import calibration, quantize
from leancnn.safe_files import read_json
from leancnn.train import train
from leancnn.train.fake_quantization import FakeQuantized
from leancnn.train.finetune import gentle
from leancnn.training_data import images_for
from tests import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network that was trained for a second."""
    folder = tmp_path_factory.mktemp("quantized")
    data = tiny.make_pictures(folder / "photos")
    train(data, recipe=tiny.RECIPE, out=folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def eight(run):
    quantize(run, run.parent / "eight", images=24)
    return run.parent / "eight"


@pytest.mark.long
def test_the_saved_network_predicts_and_evaluates_like_any_other(run, eight):
    found = leancnn.evaluate(eight, run.parent / "photos")
    assert found.images > 0
    network = weights.load(eight)
    assert network.quantized
    assert network.made["quantized"]["seed"] == 0
    assert len(network.made["quantized"]["which"]) == 24


def test_the_compiled_network_gives_the_same_bits(eight):
    network = weights.load(eight)
    native = leancnn.compile(network)
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3)).astype(np.uint8)
    planes = network.normalise(torch.from_numpy(images))
    assert np.array_equal(native.logits(planes.numpy()), network.body(planes).numpy())


def test_the_command_prints_accuracy_size_and_the_worst_layers(run, tmp_path, capsys):
    words = ["quantize", str(run), "--out", str(tmp_path / "a8"), "--images", "20", "--json"]
    assert cli.main(words) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["images"] == 20
    assert value["bytes_int8"] < value["bytes"]
    assert value["points_lost"] == pytest.approx(100 * (value["accuracy"] - value["accuracy_int8"]))
    worst = sorted(value["errors"], key=lambda each: -each[1])
    assert value["layers"] == worst[: len(value["layers"])]
    order = list(weights.load(tmp_path / "a8").body.network.values)
    seen = [order.index(name) for name, _ in value["errors"]]
    assert seen == sorted(seen)
    assert read_json(tmp_path / "a8" / "quantization.json", printed.Quantization) == value
    with Image.open(tmp_path / "a8" / "error_by_layer.png") as picture:
        assert min(picture.size) > 200


def test_the_same_seed_writes_the_same_weights(run, eight, tmp_path):
    quantize(run, tmp_path / "again", images=24)
    assert weights.digest(weights.load(eight)) == weights.digest(weights.load(tmp_path / "again"))


def test_every_class_is_among_the_calibration_images(run):
    dataset = leancnn.load_dataset(run.parent / "photos", weights.load(run).preprocessing)
    for seed in range(5):
        chosen = calibration(dataset, 16, seed)
        assert set(dataset.of_train.labels[chosen]) == set(range(len(dataset.classes)))


@pytest.mark.long
def test_too_few_images_or_a_budget_that_cannot_hold_write_nothing(run, tmp_path):
    with pytest.raises(MismatchError, match="3 calibration images are too few; 16 or more"):
        quantize(run, tmp_path / "few", images=3)
    with pytest.raises(MismatchError, match="nothing was written"):
        quantize(run, tmp_path / "dear", images=16, budget=-101.0)
    assert not (tmp_path / "few").exists() or not list((tmp_path / "few").iterdir())
    assert not (tmp_path / "dear" / "network.json").exists()


def test_images_that_are_all_alike_are_refused(run, tmp_path):
    for label in range(3):
        (tmp_path / "grey" / f"class {label}").mkdir(parents=True)
        for number in range(16):
            grey = Image.new("RGB", (10, 10), (128, 128, 128))
            grey.save(tmp_path / "grey" / f"class {label}" / f"{number}.png")
    with pytest.raises(DataError, match="all alike"):
        quantize(run, tmp_path / "out", data=tmp_path / "grey", images=16)


@pytest.mark.parametrize("to", ["litert", "ncnn", "openvino"])
def test_converters_that_know_no_such_integers_say_so(eight, tmp_path, to):
    with pytest.raises(LeanCNNError, match=r"is quantized, and .*'s converter needs the floats"):
        leancnn.export(eight, to=to, out=tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_quantized_network_is_not_trained_pruned_or_quantized_again(eight, run, tmp_path):
    with pytest.raises(LeanCNNError, match="is quantized"):
        quantize(eight, tmp_path / "twice", data=run.parent / "photos")
    with pytest.raises(LeanCNNError, match="is quantized"):
        train(run.parent / "photos", start=eight, recipe=tiny.RECIPE, out=tmp_path / "more")


def test_a_budget_gives_weights_of_10_bits_to_layers_until_it_holds(run, tmp_path, monkeypatch):
    """Made figures: three points are lost, one less for each layer with weights of 10 bits."""
    asked = []

    def accuracy(network, _):
        if not network.quantized:
            return 0.9
        nodes = network.body.network.nodes
        asked.append(sum(isinstance(n, QGather) and n.out.endswith("_times_4") for n in nodes))
        return 0.87 + 0.01 * asked[-1]

    monkeypatch.setattr(sys.modules["leancnn.quantize"], "accuracy", accuracy)
    found = quantize(run, tmp_path / "fine", images=24, budget=1.1)
    assert len(found.ten_bit) == asked[-1] == 2
    assert asked[0] == 0
    assert "weights of 10 bits, so that the budget holds" in found.text()
    kept = weights.load(tmp_path / "fine").body.network
    assert sum(name.endswith("_times_4") for name in kept.values) == 2
    assert leancnn.compile(tmp_path / "fine").metadata["precision"] == "int8"


@pytest.mark.long
def test_where_10_bits_are_not_enough_convolutions_stay_in_floats(run, tmp_path, monkeypatch):
    """Made figures: nothing helps but floats, of which two are needed."""

    def accuracy(network, _):
        if not network.quantized:
            return 0.9
        nodes = network.body.network.nodes
        return 0.87 + 0.01 * sum(isinstance(n, QFloat) and isinstance(n.op, Conv) for n in nodes)

    monkeypatch.setattr(sys.modules["leancnn.quantize"], "accuracy", accuracy)
    found = quantize(run, tmp_path / "part", images=24, budget=1.1)
    kept = weights.load(tmp_path / "part")
    assert sum(isinstance(node, QFloat) for node in kept.body.network.nodes) == len(found.floats)
    assert len(found.floats) >= 2
    assert not set(found.floats) & set(found.ten_bit)
    assert "computed in float32, not in integers: " in found.text()
    assert kept.body.network.mixed
    assert leancnn.compile(tmp_path / "part").metadata["precision"] == "int8 and float32"


def test_fake_quantization_answers_as_the_integers_that_it_trains_for(run, eight):
    """Nearer to them than a fiftieth of the answers' spread."""
    network, integers = weights.load(run), weights.load(eight)
    images = images_for(str(run.parent / "photos"), network.pictures(), val_share=0.0, split_seed=0)
    windows = np.array(network.pictures().window(images.of_train.images))
    planes = network.normalise(torch.from_numpy(windows))
    with torch.no_grad():
        floats, whole = network.body.eval()(planes), integers.body(planes)
        fake = FakeQuantized(network.body).eval()(planes)
    assert not torch.equal(fake, floats)
    assert (fake - whole).square().mean().sqrt() < floats.std() / 50
    assert (fake.argmax(1) == whole.argmax(1)).double().mean() > 0.95


@pytest.mark.long
def test_finetuning_trains_on_in_fake_quantization_and_goes_on_where_it_stopped(run, tmp_path):
    out = tmp_path / "tuned"
    given = {"images": 24, "finetune": tiny.RECIPE, "overrides": {"epochs": 1.0}}
    found = quantize(run, out, **given)
    told = json.loads((out / "finetune" / "run.json").read_text(encoding="utf-8"))
    assert told["plan"]["backend"] == "fake_quantized"
    assert found.finetuning.recipe == tiny.RECIPE.name
    assert weights.load(out).quantized
    written = read_json(out / "quantization.json", printed.Quantization)
    assert written == json.loads(json.dumps(found.to_json()))
    before = (out / "finetune" / "metrics.jsonl").read_bytes()
    again = quantize(run, out, **given)
    assert (out / "finetune" / "metrics.jsonl").read_bytes() == before
    assert again.accuracy_int8 == found.accuracy_int8
    with pytest.raises(MismatchError, match="another seed; choose another --out"):
        quantize(run, out, **given, seed=5)
    with pytest.raises(MismatchError, match="another recipe"):
        quantize(run, out, **{**given, "overrides": {"epochs": 2.0}})


@pytest.mark.parametrize("name", ["henet-fast", "small-fast", "nvmnet-fast", "smoke"])
def test_finetuning_begins_far_below_a_recipe_s_rate_and_falls_from_there(name):
    """At its whole rate one more epoch of a recipe lost 2 points; see docs/log.md."""
    whole = recipes.get(name)
    slower = gentle(name, {})
    rates = [recipes.learning_rate(slower, share) for share in np.linspace(0, 1, 50)]
    assert rates[0] == max(rates) == pytest.approx(whole.lr / 100)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0] / 50
    assert slower.epochs == pytest.approx(max(1, whole.epochs / 10))
    asked = gentle(name, {"lr": 0.03, "epochs": 2.5, "schedule": "constant", "warmup": 0.1})
    assert (asked.lr, asked.epochs, asked.schedule, asked.warmup) == (0.03, 2.5, "constant", 0.1)


@pytest.mark.parametrize("better", [False, True])
def test_a_finetuning_that_helps_nothing_is_not_kept(better, run, eight, tmp_path, monkeypatch):
    """Made figures: the validation part says which of both is saved, and equal is not better."""
    plain = weights.digest(weights.load(eight))

    def accuracy(network, _):
        if not network.quantized:
            return 0.9
        return 0.85 if better and weights.digest(network) != plain else 0.8

    monkeypatch.setattr(sys.modules["leancnn.quantize"], "accuracy", accuracy)
    out = tmp_path / "tuned"
    given = {"finetune": tiny.RECIPE, "overrides": {"epochs": 1.0, "lr": 0.05}}
    found = quantize(run, out, images=24, **given, timed=False)
    assert found.finetuning.kept == better
    assert found.accuracy_int8 == (0.85 if better else 0.8)
    assert found.finetuned == (tiny.RECIPE.name if better else None)
    assert ("is not kept" in found.text()) != better
    assert (weights.digest(weights.load(out)) == plain) != better


@pytest.mark.parametrize("rate", [1e-9, 5.0])
def test_finetuning_never_ends_worse_on_the_validation_part(rate, run, eight, tmp_path):
    out = tmp_path / "tuned"
    given = {"finetune": tiny.RECIPE, "overrides": {"epochs": 1.0, "lr": rate, "ema": 0.0}}
    found = quantize(run, out, images=24, **given, timed=False)
    without = read_json(eight / "quantization.json", printed.Quantization)["accuracy_int8"]
    assert found.finetuning.accuracy_int8_without == without
    assert found.accuracy_int8 == max(without, found.finetuning.accuracy_int8)
    plain = weights.digest(weights.load(eight))
    assert (weights.digest(weights.load(out)) == plain) != found.finetuning.kept
