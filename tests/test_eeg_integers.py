"""A decoder of signals in 8-bit integers: bits in C, people not seen, and what each verb does."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

import leancnn
from leancnn import cli
from leancnn.bench import untrained
from leancnn.compiler.integers_data import from_data, to_data
from leancnn.compiler.reference import IntegerNetwork
from leancnn.eeg import integers
from leancnn.eeg import training as stage
from leancnn.eeg.filters import bank_for
from leancnn.eeg.held_out import load_held_out, save_held_out
from leancnn.eeg.integers import (
    network_in_integers,
    networks_of,
    quantize,
    with_compiled_integers,
)
from leancnn.eeg.network import fit_network
from leancnn.eeg.provenance import load_trials
from leancnn.eeg.session import load_decoder
from leancnn.errors import DataError, MismatchError, MissingDependencyError, RunError
from leancnn.normalisation import planes
from leancnn.weights import load as load_network
from tests.eeg_data import people, save_trials
from tests.few import few


@contextmanager
def one_network_for_an_instant():
    """Decoders have one network instead of four, trained for three epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "NETWORKS", 1)
        brief = {**fit_network.__kwdefaults__, "epochs": 3}
        patch.setattr(fit_network, "__kwdefaults__", brief)
        yield


def eeg_run(folder, decoder, **settings):
    """A run of two people's made trials, its networks trained for an instant."""
    with one_network_for_an_instant():
        epochs = people(count=2, trials=16, rest=2)
        data = save_trials(folder / "trials.npz", epochs)
        words = ["eeg", "train", str(data), "--out", str(folder / "e"), "--decoder", decoder]
        assert cli.main(words) == 0
        if decoder == "ensemble":
            eight = str(folder / "e8")
            assert cli.main(["quantize", str(folder / "e"), "--out", eight, "--json"]) == 0
    return folder


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    """An ensemble of one network and a logit as `e`, and the same in integers as `e8`."""
    return eeg_run(tmp_path_factory.mktemp("ensemble"), "ensemble")


@pytest.fixture(scope="module")
def logit(tmp_path_factory):
    return eeg_run(tmp_path_factory.mktemp("logit"), "logit")


@pytest.mark.long
def test_integers_in_c_round_signals_to_the_bits_of_the_reference():
    floats = untrained("ssvepnet")
    floats.body.fc.bias.data = torch.tensor([1.0, -2.0, 3.0])  # which stands behind the flattening
    fed = torch.from_numpy(floats.preprocessing.made(100))
    network = network_in_integers(floats, fed)
    far = torch.cat([fed, 40 * fed, torch.full_like(fed[:1], np.nan)])  # beyond all ranges too
    expected = network(far).numpy()
    native = leancnn.compile(network)
    given = planes(far.numpy(), network.mean, network.std, 1.0)
    assert np.array_equal(native.logits(given), expected)
    shares = np.exp(expected - expected.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    assert np.allclose(native(far.numpy()), shares, atol=1e-6)
    assert native.metadata["precision"] == "int8"
    error = network(fed) - floats(fed)
    assert error.detach().abs().mean() < 0.05 * floats(fed).std()


@pytest.mark.long
def test_a_live_decoder_answers_integers_in_c_with_the_bits_of_the_reference(ensemble):
    reference, _ = stage.load(ensemble / "e8")
    live, _ = load_decoder(str(ensemble / "e8"))
    nets = live.parts[1]
    assert nets.answers != reference.parts[1].answers
    image = nets.networks[0].preprocessing.made(20)
    for one in (image, 40 * image):
        expected = reference.parts[1].answers[0](one)
        assert np.array_equal(nets.answers[0](one), expected)
    window = np.random.default_rng(0).standard_normal((5, 8, 500))
    assert np.array_equal(live.scores(window, 250.0), reference.scores(window, 250.0))
    floats, _ = load_decoder(str(ensemble / "e"))  # whose last digits C does not share
    assert with_compiled_integers(floats).parts[1].answers == floats.parts[1].answers


def test_without_a_compiler_the_reference_of_the_integers_answers_and_it_is_said(
    ensemble, monkeypatch
):
    def none(network):
        raise MissingDependencyError("no C compiler found; install gcc or clang")

    monkeypatch.setattr(integers, "compile", none)
    reference, _ = stage.load(ensemble / "e8")
    with pytest.warns(UserWarning, match="no C compiler found.*the same bits"):
        live, _ = load_decoder(str(ensemble / "e8"))
    window = np.random.default_rng(0).standard_normal((5, 8, 500))
    assert np.array_equal(live.scores(window, 250.0), reference.scores(window, 250.0))


def test_a_network_of_signals_comes_back_with_the_step_of_its_bytes():
    floats = untrained("ssvepnet")
    made = network_in_integers(floats, torch.from_numpy(floats.preprocessing.made(32))).body
    about, arrays = to_data(made.network)
    again = IntegerNetwork(from_data(about, arrays))
    x = torch.randn(5, 10, 3, 9)
    assert torch.equal(again(x), made(x))
    assert np.array_equal(again.network.step, made.network.step)
    assert "step" not in to_data(replace(made.network, step=None))[1]  # of pixels


def test_a_quantized_run_is_a_run_whose_held_out_scores_are_of_integers(ensemble, capsys):
    decoder, about = stage.load(ensemble / "e8")
    assert [net.quantized for net in networks_of(decoder)] == [True]
    assert decoder.parts[0].name == "logit"
    assert about["quantized"]["windows"] == 32
    floats, _ = load_held_out(ensemble / "e")
    held, _ = load_held_out(ensemble / "e8")
    assert held.tested.all()
    assert not np.array_equal(held.scores, floats.scores)
    figures = json.loads((ensemble / "e8" / "integers.json").read_text())
    assert figures["bytes_int8"] < figures["bytes"]
    assert figures["trials"] == 32
    seen = held.labels >= 0
    correct = held.scores[seen].argmax(1) == held.labels[seen]
    assert correct.mean() == figures["accuracy_int8"]
    held.check_trials(load_trials(ensemble / "e8"))  # what `eeg evaluate` reads
    capsys.readouterr()
    replay = ["eeg", "run", "--source", f"replay:{ensemble / 'trials.npz'}", "--speed", "0"]
    assert cli.main([*replay, "--decoder", str(ensemble / "e8"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decided"] == 36


@pytest.mark.long
def test_integers_are_compared_with_floats_trained_beside_them_not_with_old_scores(
    ensemble, tmp_path
):
    first = json.loads((ensemble / "e8" / "integers.json").read_text())
    assert first["accuracy_of_run"] == first["accuracy"]  # the same machine
    shutil.copytree(ensemble / "e", tmp_path / "e")
    held, about = load_held_out(ensemble / "e")
    save_held_out(replace(held, scores=-held.scores), tmp_path / "e", about)  # as if another's
    with one_network_for_an_instant():
        found = quantize(tmp_path / "e", tmp_path / "e8", load_trials(ensemble / "e"))
    assert {
        key: found.to_json()[key] for key in ("accuracy", "accuracy_int8", "agreement", "p")
    } == {key: first[key] for key in ("accuracy", "accuracy_int8", "agreement", "p")}
    assert found.accuracy_of_run < found.accuracy
    assert f"when the run was trained: {found.accuracy_of_run:.2%}" in found.text()


def test_what_sets_ranges_is_given_no_window_of_people_that_are_held_out():
    epochs, seen = people(count=2, trials=16, rest=2), []

    def finish(made, features, labels):
        seen.append({window.tobytes() for window in features})
        assert labels.min() >= 0
        return made

    config = stage.DecoderConfig("logit")
    stage.held_out_by_each(epochs, "subject", 2.0, config, [finish])
    features = config.features(epochs, bank_for(epochs.targets), 2.0)
    for fold, person in enumerate(np.unique(epochs.subject)):
        there = {features[n].tobytes() for n in np.flatnonzero(epochs.subject == person)}
        assert seen[fold]
        assert not seen[fold] & there


VERBS = {  # what each verb says of an EEG run, and whether it can
    ("compile", "e8"): (0, "ssvepnet.so"),
    ("compile", "e"): (0, "ssvepnet.so"),
    ("bench", "e8"): (0, "ssvepnet"),
    ("bench", "e"): (0, "ssvepnet"),
    ("export", "e"): (0, "ssvepnet.c"),
    ("export", "e8"): (0, "ssvepnet.c"),
    ("prune", "e"): (0, "ssvepnet"),
    ("prune", "e8"): (1, "is quantized, and"),
    ("quantize", "e8"): (1, "is quantized, and quantizing it needs the floats"),
    ("evaluate", "e"): (2, "leancnn eeg evaluate"),
    ("predict", "e"): (2, "leancnn eeg evaluate"),
    ("evaluate", "e8"): (2, "leancnn eeg evaluate"),
    ("predict", "e8"): (2, "leancnn eeg evaluate"),
}


@pytest.mark.parametrize(("verb", "name"), few(VERBS, rows=True))
def test_each_verb_takes_a_decoder_of_signals_or_says_which_does(
    ensemble, tmp_path, capsys, verb, name
):
    status, says = VERBS[verb, name]
    words = [verb, str(ensemble / name)]
    words += {
        "compile": ["--out", str(tmp_path / "build")],
        "export": ["--to", "c", "--out", str(tmp_path / "build")],
        "bench": ["--engines", "c", "--rounds", "1"],
        "prune": [
            "--criterion",
            "l1",
            "--keep-ratio",
            "0.5",
            "--no-time",
            "--out",
            str(tmp_path / "cut"),
        ],
        "quantize": ["--out", str(tmp_path / "twice")],
        "predict": [str(ensemble / "trials.npz")],
    }.get(verb, [])
    assert cli.main(words) == status
    out, err = capsys.readouterr()
    assert says in out + err
    if status:
        assert len(err.strip().splitlines()) == 1
        assert not (tmp_path / "twice").exists()


@pytest.mark.parametrize("verb", ["compile", "bench", "prune", "export", "count"])
def test_verbs_of_networks_say_of_a_logit_that_it_is_c_already(logit, tmp_path, capsys, verb):
    out = ["--out", str(tmp_path / "out")]
    words = {"bench": [], "count": [], "prune": ["--keep-ratio", "0.5", *out]}.get(verb, out)
    if verb == "export":
        words += ["--to", "c"]
    assert cli.main([verb, str(logit / "e"), *words]) == 1
    err = capsys.readouterr().err
    assert "decodes EEG without a network; decoder.c in it is its C already" in err
    assert len(err.strip().splitlines()) == 1
    assert (logit / "e" / "decoder.c").is_file()


def test_a_report_says_that_a_run_is_in_integers(ensemble, tmp_path):
    assert cli.main(["report", str(ensemble / "e8"), "--out", str(tmp_path / "page.html")]) == 0
    assert "8-bit integers" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("more", "says"),
    few(
        [
            (["--budget", "1"], "--budget is for networks of images"),
            (["--finetune", "digits"], "--finetune is for networks of images"),
            (["--images", "3"], "3 calibration images are too few"),
        ],
        rows=True,
    ),
)
def test_what_cannot_be_quantized_writes_nothing(ensemble, tmp_path, capsys, more, says):
    words = ["quantize", str(ensemble / "e"), "--out", str(tmp_path / "out"), *more]
    assert cli.main(words) != 0
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_logit_has_no_network_and_other_trials_are_refused(ensemble, logit, tmp_path):
    epochs = people(count=2, trials=16, rest=2)
    with pytest.raises(MismatchError, match="is a logit without a network"):
        quantize(logit / "e", tmp_path / "out", epochs)
    with pytest.raises(DataError, match="not the trials"):
        quantize(ensemble / "e", tmp_path / "out", epochs.looking())
    with pytest.raises(RunError, match="is not empty"):
        quantize(ensemble / "e", ensemble / "e8", epochs)


def test_integers_of_signals_as_onnx_answer_in_another_engine(ensemble, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    network = load_network(ensemble / "e8")
    (artifact,) = leancnn.export(network, to="onnx", out=tmp_path)  # which compares all answers
    assert artifact.exists()
