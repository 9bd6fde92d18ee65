"""Training, scoring on people not seen, saving; and what the recorded data are known to give."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leancnn import cli
from leancnn.eeg import Epochs, evaluate, fit, load, train
from leancnn.eeg import training as stage
from leancnn.eeg.decoders import fbcca, fit_logit
from leancnn.eeg.evaluation import shuffled
from leancnn.eeg.filters import Bank
from leancnn.eeg.held_out import load_held_out
from leancnn.eeg.scoring import (
    bits_per_minute,
    chosen,
    chosen_range,
    folds,
    grid_scores,
    held_out,
    interval,
    mcnemar,
    textbook_scores,
    undecided_curve,
)
from leancnn.eeg.windows import images, windows
from leancnn.errors import DamagedError, DataError, RunError, UsageError
from leancnn.models import create_model
from tests.eeg_data import RECORDED, TARGETS, people, save_trials


def labels_only(subjects, sessions):
    count = len(subjects)
    return Epochs(
        x=np.zeros((count, 1, 2), np.float32),
        hz=np.tile([10.0, 12.0], count)[:count],
        subject=np.array(subjects),
        session=np.array(sessions),
        fs=1.0,
        t0=0.0,
        channels=("A",),
    )


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=4, max_size=60))
@settings(max_examples=60)
def test_nobody_stands_on_both_sides_of_a_split(trials):
    subjects = [f"p{person}" for person, _ in trials]
    sessions = [f"p{person}-{session}" for person, session in trials]
    epochs = labels_only(subjects, sessions)
    for split, names in (("subject", epochs.subject), ("session", epochs.session)):
        try:
            parts = list(folds(epochs, split))
        except DataError:
            continue
        for _, test in parts:
            assert not set(names[test]) & set(names[~test])
            assert test.any()
        tested = np.sum([test for _, test in parts], 0)
        assert tested.max() == 1
        if split == "subject":
            assert tested.min() == 1


def test_scores_come_from_masks_that_leave_the_fold_out():
    epochs = labels_only(list("aabbcc"), list("123456"))
    seen = []

    def predict(train_mask, test_mask):
        seen.append((train_mask, test_mask))
        return np.ones((int(test_mask.sum()), 2))

    scores, tested = held_out(epochs, "subject", predict)
    assert tested.all()
    assert (scores == 1).all()
    assert all((train_mask ^ test_mask).all() for train_mask, test_mask in seen)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_of_equal_variants_any_order_stays_within_the_range_of_all(seed):
    random = np.random.default_rng(seed)
    epochs = labels_only(list("aabbccdd"), list("12345678"))
    grid = random.integers(0, 2, (12, 8, 2)).astype(np.float32)  # few values: many equals
    least, most = chosen_range(epochs, "subject", grid)
    found = []
    for order in (np.arange(12), random.permutation(12), random.permutation(12)):
        best, tested, _ = chosen(epochs, "subject", grid[order])
        found.append((best.argmax(1) == epochs.labels)[tested].mean())
    assert least <= min(found)
    assert max(found) <= most


def test_one_person_cannot_be_split_by_person():
    with pytest.raises(DataError, match="try --split session"):
        list(folds(labels_only(["a"] * 4, list("1122")), "subject"))


def test_mcnemar_is_the_exact_binomial():
    ours = np.array([True] * 19 + [False] * 7 + [True] * 10)
    theirs = np.array([False] * 19 + [True] * 7 + [True] * 10)
    won, lost, p = mcnemar(ours, theirs)
    assert (won, lost) == (19, 7)
    assert p == pytest.approx(0.0290, abs=1e-4)


@given(st.integers(2, 8), st.floats(0, 1))
def test_the_rate_is_nothing_at_chance_and_most_when_all_is_right(targets, accuracy):
    rate = bits_per_minute(accuracy, targets, 2.0)
    assert 0 <= rate <= bits_per_minute(1.0, targets, 2.0) + 1e-9
    assert bits_per_minute(1.0, targets, 2.0) == pytest.approx(30 * np.log2(targets))
    assert bits_per_minute(1 / targets, targets, 2.0) == 0


def test_an_interval_draws_people_not_trials():
    correct = np.repeat([True, False], 500)
    people_of = np.repeat(["a", "b"], 500)
    assert interval(correct, people_of) == (0.0, 1.0)
    assert interval(correct, np.arange(1000))[1] < 0.54


def test_a_higher_threshold_keeps_fewer():
    random = np.random.default_rng(0)
    sure = random.dirichlet((1, 1, 1), 300)
    rows = undecided_curve(sure, sure.argmax(1), random.dirichlet((3, 3, 3), 100))
    assert [row["kept"] for row in rows] == sorted((row["kept"] for row in rows), reverse=True)
    fires = [row["rest fires"] for row in rows]
    assert fires == sorted(fires, reverse=True)
    assert all(row["accuracy"] == 1 for row in rows)


def test_a_logit_is_a_function_of_its_data_and_beats_chance():
    epochs = people().looking()
    features = images(epochs, Bank((6.0, 14.0, 22.0, 30.0, 38.0)), 2.0)
    args = features, epochs.labels, epochs.subject, epochs.targets, Bank()
    one, two = fit_logit(*args), fit_logit(*args)
    assert np.array_equal(one.weights, two.weights)
    assert one.weights.size + one.bias.size == 24  # 20 shared, one for each of 4 candidates
    answers = [one.scores_from_features(image).argmax() for image in features]
    assert (np.array(answers) == epochs.labels).mean() > 0.9


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("eeg") / "run"
    epochs = people(rest=4)
    decoder, held = train(epochs, out, window=2.0, decoder="logit")
    return out, epochs, decoder, held


def test_a_run_comes_back_with_the_same_bits(run):
    out, epochs, decoder, held = run
    again, about = stage.load(out)
    looking = epochs.looking()
    window = next(iter(windows(looking, decoder.bank, 2.0)))
    assert np.array_equal(again.scores(window, 250.0), decoder.scores(window, 250.0))
    assert (about["window"], about["split"]) == (2.0, "subject")
    kept, _ = load_held_out(out)
    assert np.array_equal(kept.scores, held.scores)
    assert held.tested.all()


def test_a_run_is_not_written_over_and_damage_is_seen(run, tmp_path):
    out, epochs, decoder, _ = run
    with pytest.raises(RunError, match="not empty"):
        train(epochs, out)
    stage.save(decoder, tmp_path, {"format": 1, "window": 2.0})
    bits = bytearray((tmp_path / "decoder.safetensors").read_bytes())
    bits[-3] ^= 1
    (tmp_path / "decoder.safetensors").write_bytes(bits)
    with pytest.raises(DamagedError):
        stage.load(tmp_path)
    with pytest.raises(RunError, match="holds no decoder"):
        stage.load(tmp_path / "no")


@pytest.mark.long
def test_an_evaluation_says_who_and_beside_what(run):
    _, epochs, _, held = run
    report = evaluate(held, epochs, split="subject", window=2.0, decoder="logit", shuffles=1)
    value = report.to_json()
    json.dumps(value, allow_nan=False)
    assert set(value["per person"]) == {f"made-{n}" for n in (1, 2, 3, 4)}
    assert [one["name"] for one in value["baselines"]] == ["FBCCA chosen", "FBCCA textbook"]
    assert value["interval"][0] <= value["accuracy"] <= value["interval"][1]
    assert value["shuffled"]["repeats"] == 1
    assert "McNemar" in report.text()
    with pytest.raises(DataError, match="not the trials"):
        evaluate(held, people(), split="subject", window=2.0, decoder="logit")


def changed(epochs, **fields):
    return replace(epochs, _keys=[], **fields)


def one_other(array, value):
    array = array.copy()
    array[5] = value
    return array


OTHERS = {
    "64 for 80": lambda e: e.looking(),
    "the frequencies of 1 of 80 are others": lambda e: changed(e, hz=one_other(e.hz, 0.0)),
    "the people of 1 of 80 are others": lambda e: changed(e, subject=one_other(e.subject, "x")),
    "the sessions of 1 of 80 are others": lambda e: changed(e, session=one_other(e.session, "x")),
    "the signals, rate or frequencies of 1 of 80 are others": lambda e: changed(
        e, x=one_other(e.x, 1.0)
    ),
    "the signals, rate or frequencies of 80 of 80 are others": lambda e: changed(e, fs=e.fs + 1),
    "the signals, rate or frequencies of 16 of 80 are others": lambda e: changed(
        e, hz=np.where(e.hz == 12, 13, e.hz)
    ),
    "the signals, rate or frequencies of 80 of 80 are others, ": lambda e: changed(e, x=-e.x),
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_trials_of_the_same_protocol_are_refused_in_one_line(run, what):
    out, epochs, _, _ = run
    held, _ = load_held_out(out)
    held.check_trials(epochs)
    with pytest.raises(DataError) as refused:
        held.check_trials(OTHERS[what](epochs))
    assert f"({what.strip(', ')});" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_run_of_before_digests_compares_what_it_has(run):
    _, epochs, _, held = run
    old = replace(held, digests=np.zeros((0, 32), np.uint8))
    old.check_trials(epochs)
    with pytest.raises(DataError, match="the sessions of 80 of 80"):
        old.check_trials(changed(epochs, session=epochs.subject))


def test_a_recording_that_was_overwritten_is_not_evaluated(tmp_path, capsys):
    epochs, path = people(count=2), tmp_path / "a.npz"
    save_trials(path, epochs)
    assert cli.main(["eeg", "train", str(path), "--out", str(tmp_path / "e")]) == 0
    save_trials(path, changed(epochs, x=epochs.x[::-1]))
    capsys.readouterr()
    assert cli.main(["eeg", "evaluate", str(tmp_path / "e")]) == 1
    assert len((said := capsys.readouterr().err).strip().splitlines()) == 1
    assert "the signals, rate or frequencies of 32 of 32 are others" in said


def test_shuffled_labels_teach_nothing():
    epochs = people(snr_db=-14.0).looking()
    found = [shuffled(epochs, "subject", 1.0, "logit", repeat) for repeat in range(8)]
    assert abs(np.mean(found) - 0.25) < 0.2  # 64 trials, and one repeat alone strays further
    assert max(found) - min(found) > 0.02


def test_trials_that_cannot_be_trained_on_are_refused():
    epochs = people()
    with pytest.raises(DataError, match="two or more frequencies"):
        fit(epochs[epochs.hz == 10.0])
    with pytest.raises(DataError, match=r"at most 2.5 s do"):
        fit(epochs, window=9.0)
    x = epochs.x.copy()
    x[3, 2, 100] = np.nan
    with pytest.raises(DataError, match="NaN in its signals"):
        fit(Epochs(x, epochs.hz, epochs.subject, epochs.session, 250.0, -1.0, epochs.channels))


@pytest.mark.long
def test_a_network_learns_saves_and_compiles_to_the_same_answers(tmp_path, monkeypatch):
    from leancnn.compile import compile
    from leancnn.weights import load as load_network

    epochs = people(count=3, trials=24)
    monkeypatch.setattr(stage, "NETWORKS", 2)
    whole = stage.fit(epochs, decoder="ensemble")
    stage.save(whole, tmp_path / "run", {"format": 1, "window": 2.0})
    again, _ = stage.load(tmp_path / "run")
    looking = epochs.looking()
    window = next(iter(windows(looking, whole.bank, 2.0)))
    assert np.array_equal(whole.scores(window, 250.0), again.scores(window, 250.0))
    network = load_network(tmp_path / "run")
    assert network.classes == ("7.5 Hz", "8.57143 Hz", "10 Hz", "12 Hz")
    native = compile(network)
    features = images(looking, whole.bank, 2.0).transpose(0, 2, 3, 1)
    features = np.ascontiguousarray(features)
    from leancnn.eeg.network import in_torch

    logits = in_torch(network)(features)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(native(features), expected, atol=1e-5)
    assert (logits.argmax(1) == looking.labels).mean() > 0.7


def test_a_network_of_signals_reads_no_pictures(tmp_path):
    from leancnn.bench import untrained
    from leancnn.predict import predict
    from leancnn.weights import save

    save(untrained("ssvepnet"), tmp_path / "net")
    with pytest.raises(UsageError, match="decodes signals"):
        predict(tmp_path / "net", tmp_path)


# Recorded people


recorded = pytest.mark.skipif(not RECORDED.exists(), reason=f"{RECORDED} is not there")


@pytest.fixture(scope="module")
def recordings():
    return load(RECORDED).looking()


@recorded
@pytest.mark.slow
def test_the_yardstick_is_what_it_was_measured_to_be(recordings):
    scores = grid_scores(recordings, 2.0)[1]
    assert len(scores) == 224
    best, tested, picks = chosen(recordings, "subject", scores)
    assert tested.all()
    assert len(set(picks)) == 1
    assert (best.argmax(1) == recordings.labels).mean() == pytest.approx(0.8815, abs=0.002)
    textbook = textbook_scores(recordings, 2.0)
    assert (textbook.argmax(1) == recordings.labels).mean() == pytest.approx(0.822, abs=0.002)


@recorded
@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "least"), [(2.0, 0.88), (4.0, 0.92)])
def test_the_logit_holds_its_bar_on_people_not_seen(recordings, seconds, least):
    held = stage.held_out_scores(recordings, "subject", seconds, stage.DecoderConfig("logit"))
    assert (held.scores.argmax(1) == held.labels).mean() >= least


@recorded
@pytest.mark.slow
def test_codes_crossed_in_public_copies_would_be_seen(recordings):
    from leancnn.eeg import check

    hz = np.where(recordings.hz == 17, 21.0, np.where(recordings.hz == 21, 17.0, recordings.hz))
    assert check(recordings).fit
    report = check(replace(recordings, hz=hz, _keys=[]))
    assert any("17 Hz is 21 Hz, 21 Hz is 17 Hz" in line for line in report.problems)


def test_the_files_of_two_runs_hold_what_was_trained(tmp_path):
    epochs = people()
    path = save_trials(tmp_path / "a.npz", epochs)
    found = load(path)
    assert np.array_equal(found.labels, epochs.labels)
    assert fbcca(found.targets).frequencies == TARGETS


# Networks of images on spectrograms, and pruned ones


def test_a_spectrogram_has_no_unit_and_its_brightest_row_is_the_frequency():
    from leancnn.eeg.spectrogram import spectrogram

    time = np.arange(500) / 250
    for place, hz in enumerate((8.0, 12.0, 20.0)):
        x = np.sin(2 * np.pi * hz * time + place)[None, None]
        found = spectrogram(x, (8.0, 12.0), 250.0, (41, 5))  # rows from 6 to 26 Hz in steps of 0.5
        assert (found[0].argmax(0) == (hz - 6) * 2).all()
        assert np.allclose(spectrogram(x * 1e6, (8.0, 12.0), 250.0, (41, 5)), found, atol=1e-5)
        assert abs(found.mean()) < 1e-4


def test_a_network_of_images_learns_spectrograms_is_pruned_and_comes_back(tmp_path, monkeypatch):
    from leancnn.eeg.network import fit_network

    brief = {**fit_network.__kwdefaults__, "epochs": 1}
    monkeypatch.setattr(fit_network, "__kwdefaults__", brief)
    epochs = people(count=2, trials=8)
    made = stage.fit(epochs, decoder="resnet8", keep_ratio=0.5)
    whole = create_model("resnet8", classes=4, channels=8).parameters()
    count = sum(p.numel() for p in made.networks[0].parameters())
    assert count < 0.5 * sum(p.numel() for p in whole)
    stage.save(made, tmp_path, {"format": 1, "window": 2.0})
    again, _ = stage.load(tmp_path)
    window = next(iter(windows(epochs, made.bank, 2.0)))
    assert np.array_equal(made.scores(window, 250.0), again.scores(window, 250.0))
    assert again.name == "resnet8"


@pytest.mark.parametrize(
    ("decoder", "keep_ratio", "says"),
    [("no", None, "'no' is no decoder that is trained"), ("logit", 0.5, "no channels to prune")],
)
def test_what_cannot_be_trained_is_said(decoder, keep_ratio, says):
    with pytest.raises(UsageError, match=says):
        stage.fit(people(), decoder=decoder, keep_ratio=keep_ratio)
