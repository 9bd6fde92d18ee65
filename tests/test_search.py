"""A search: what meets a budget, which trial goes on, and that a kill loses one rung at most."""

import dataclasses
import json
import random
import types
from pathlib import Path

import pytest

from leancnn import cli, recipes, runs
from leancnn.errors import (
    DamagedError,
    DataError,
    LeanCNNError,
    MismatchError,
    RunError,
)
from leancnn.search import Budget, drive, latency_model, plan
from leancnn.search import run as searching
from leancnn.search.drive import front
from leancnn.search.request import images
from leancnn.search.space import AUGMENT, Architecture, Change, architectures, searched
from leancnn.search.study import Trial, drop_torn_line
from leancnn.search.trial import Job, Outcome
from tests.photos import draw, photos
from tests.searches import FOUND, Stub, a_plan, architecture, driven, priced, study_in


def test_a_network_is_searched_under_one_name_and_signals_under_none():
    names = searched()
    assert "henet_r3" in names
    assert not {"henet_r2", "henet_r4", "ssvepnet"} & names.keys()
    assert all(each for choices in names.values() for each in choices.values())


@pytest.mark.long
def test_shapes_are_counted_as_leancnn_counts_and_images_that_fit_no_network_give_none():
    found = list(architectures(classes=10, channels=3, sizes=[(31, 31)], only=["henet_r3"]))
    usual = next(one for one in found if not one.arguments)
    assert (usual.macs, usual.bytes) == (10_046_040, 4 * 87_058)
    assert len({one.key for one in found}) == len(found) == 36
    assert not list(architectures(classes=10, channels=3, sizes=[(20, 20)], only=["henet_r3"]))
    again = Architecture.of_json(json.loads(json.dumps(found[1].to_json())))
    assert again == found[1]


@pytest.mark.parametrize(
    ("words", "said", "status"),
    [
        ("", "a folder of images, or --dry-run", 2),
        ("photos --out x", "needs --hours", 2),
        ("photos --hours 1", "needs --out", 2),
        ("photos --hours 1 --out x --time 3days", "no time such as 150us", 2),
        ("photos --hours 1 --out x --accuracy 95", "no share such as 0.95", 2),
        ("--dry-run --hours 1", "leave out --hours", 2),
        ("photos --dry-run --classes 5", "leave out --classes", 2),
        ("photos --hours 1 --out x --epochs 0", "--epochs is 1 or more", 2),
        ("photos --hours 1 --out x --classes 5", "--classes is for --dry-run", 2),
        ("nowhere --hours 1 --out x --workers 1", "nor is a folder of that name here", 1),
        ("digits --hours 0 --out x --workers 1", "above 0 and at most 10,000", 2),
        ("digits --hours 1 --out x --workers 0", "--workers is 1 to", 2),
        ("digits --hours 1 --out x --cluster slurm", "give --cluster ray://HEAD:10001", 2),
        ("--dry-run --time 1us --networks henet", "did you mean", 2),
        ("--dry-run --time 1us --networks henet_r2", "is searched under another name", 2),
    ],
)
def test_words_that_are_no_search_get_one_line(words, said, status, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["search", *words.split()]) == status
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_change_of_nothing_is_the_recipe_itself():

    own = recipes.for_network("henet_r3")
    assert Change().overrides(own) == {}
    assert str(Change()) == ""
    for augment in AUGMENT:
        changed = own.changed(**Change(0.5, 2.0, augment).overrides(own))
        assert changed.lr == pytest.approx(own.lr / 2)
        assert changed.weight_decay == pytest.approx(2 * own.weight_decay)


def test_the_study_begins_with_the_largest_shape_of_each_network_by_its_own_recipe(tmp_path):
    study = study_in(tmp_path)
    first = [study.ask() for _ in range(3)]
    assert {one.candidate.architecture.network for one in first} == {
        one.architecture.network for one in FOUND
    }
    assert all(one.candidate.microseconds == 50 and one.change == Change() for one in first)


def test_a_trial_that_does_badly_is_stopped_and_the_best_goes_to_the_last_rung(tmp_path):
    driver, ended = driven(tmp_path, Stub(), many=60)
    trials = driver.study.trials()
    assert ended
    assert {one.state for one in trials} >= {"finished", "stopped"}
    best = max(trials, key=lambda one: one.accuracy or 0)
    assert best.epochs == 9
    assert all(one.epochs < 9 for one in trials if one.state == "stopped")


def test_backends_are_timed_for_a_training_that_is_longer_than_that():
    short, long = a_plan(), a_plan(images=1_000_000)
    driven = [drive.Driver(one, Path("x"), None, Stub(), 1.0) for one in (short, long)]
    trial = Trial(0, FOUND[0], Change(), {}, "running")
    for driver, choose in zip(driven, (False, True), strict=True):
        driver.study = types.SimpleNamespace(next_epochs=lambda trial: 1)
        assert driver.job(trial).choose is choose


def test_a_lost_worker_costs_one_rung_and_no_rung_is_run_twice(tmp_path):
    pool = Stub(die=(3, 8, 9, 20))
    driven(tmp_path, pool, many=50)
    assert len(pool.done) == len(set(pool.done))


def test_a_search_goes_on_where_it_stood_with_other_draws(tmp_path):
    first, second = Stub(), Stub()
    driver, _ = driven(tmp_path, first, many=20)
    before = {one.number: one for one in driver.study.trials() if one.state != "running"}
    driver, _ = driven(tmp_path, second, many=20)
    after = {one.number: one for one in driver.study.trials()}
    assert all(after[number] == one for number, one in before.items())
    assert not set(first.done) & set(second.done)
    drawn = [(one.candidate.architecture.key, one.change) for one in after.values()]
    assert len(drawn) == len(set(drawn))


def test_a_journal_that_a_kill_cut_short_is_read_without_its_last_line(tmp_path):
    driven(tmp_path, Stub(), many=10)
    path = tmp_path / "study.journal"
    whole_text = path.read_bytes()
    lines = whole_text.splitlines(keepends=True)
    for cut in (1, len(lines[-1]) // 2):
        path.write_bytes(whole_text[:-cut])
        drop_torn_line(path)
        assert path.read_bytes() == b"".join(lines[:-1])
    study = study_in(tmp_path)
    study.ask()


def test_where_the_first_trials_all_fail_the_search_ends_with_their_error(tmp_path):
    with pytest.raises(LeanCNNError, match="all failed: DataError: no images"):
        driven(tmp_path, Stub(fail=lambda job: "DataError: no images"), many=10)


def test_one_network_that_fails_is_left_behind(tmp_path):
    pool = Stub(fail=lambda job: "DivergedError" if job.architecture.network == "resnet8" else "")
    driver, _ = driven(tmp_path, pool, many=20)
    failed = [one for one in driver.study.trials() if one.state == "failed"]
    assert failed
    assert {one.why for one in failed} == {"DivergedError"}


def test_a_search_ends_when_the_accuracy_is_reached_beyond_chance(tmp_path):
    driver, ended = driven(tmp_path, Stub(), many=500, budget=Budget(accuracy=0.6))
    best = max(one.accuracy or 0 for one in driver.study.trials())
    assert ended
    assert drive.lower_bound(best, 200) >= 0.6
    assert len(driver.study.trials()) < 50


def a_trial(number, accuracy, us, size):
    return Trial(number, priced(us, size=size), Change(), {1: accuracy}, "stopped")


def test_the_front_holds_what_nothing_beats_in_accuracy_time_and_bytes_at_once():
    trials = [
        a_trial(0, 0.9, 100, 100),
        a_trial(1, 0.8, 50, 200),
        a_trial(2, 0.7, 60, 50),
        a_trial(3, 0.6, 60, 60),  # beaten by 2
        a_trial(4, 0.9, 100, 100),  # the same as 0
    ]
    assert [one.number for one in front(trials)] == [0, 1, 2]


def test_weights_of_what_is_not_on_the_front_are_removed(tmp_path):
    pool = Stub()

    def start(job):
        folder = Path(job.folder)
        for name in ("best", "checkpoints"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        Stub.start(pool, job)

    pool.start = start
    driver, _ = driven(tmp_path, pool, many=40)
    trials = driver.study.trials()
    there = {int(each.parent.name) for each in tmp_path.glob("trials/*/best")}
    running = {one.number for one in trials if one.state == "running"}
    assert there - running <= {one.number for one in front(trials)}
    assert len(there) <= plan.KEPT + len(running)


def test_a_plan_is_read_back_and_knows_another_search(tmp_path):
    made = a_plan()
    made.write(tmp_path)
    again = plan.SearchPlan.read(tmp_path)
    assert again == made
    again.check_same({"data": "digits", "seed": 0, "networks": None}, tmp_path)
    with pytest.raises(RunError, match="another search, with seed 0 and not 1"):
        again.check_same({"seed": 1}, tmp_path)
    with pytest.raises(RunError, match="another search, with budget at most 100 µs"):
        again.check_same({"budget": Budget(bytes=5).to_json()}, tmp_path)


def test_a_plan_that_calls_its_latency_model_a_clock_is_read(tmp_path):
    made = a_plan(latency_model={"median_error": 0.1})
    value = made.to_json()
    runs.write_checked(tmp_path / plan.FILE, {**value, "clock": {"median_error": 0.9}})
    assert plan.SearchPlan.read(tmp_path) == made
    value["clock"] = value.pop("latency_model")
    runs.write_checked(tmp_path / plan.FILE, value)
    assert plan.SearchPlan.read(tmp_path) == made
    del value["clock"]
    runs.write_checked(tmp_path / plan.FILE, value)
    with pytest.raises(DamagedError, match="no latency_model"):
        plan.SearchPlan.read(tmp_path)


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    plan.check_no_other(tmp_path / "new")
    plan.check_no_other(tmp_path)
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(MismatchError, match=r"holiday\.jpg"):
        plan.check_no_other(tmp_path)


def test_too_few_validation_images_are_refused():
    with pytest.raises(DataError, match="too few to tell networks apart"):
        images("digits", architecture(), 0.005, 0)


def test_images_that_changed_since_a_search_began_are_refused_and_its_folder_is_left(tmp_path):
    data, folder = photos(tmp_path / "photos", each=20), tmp_path / "s"
    began = images(str(data), FOUND[0].architecture, 0.5, 0)
    known = {"data_sha256": dict(began.manifest["sha256"]), "classes": began.classes}
    made = a_plan(data=str(data.resolve()), val_share=0.5, budget=Budget(bytes=10**6), **known)
    made.check_data(images(str(data), FOUND[0].architecture, 0.5, 0))
    folder.mkdir()
    made.write(folder)
    kept = (folder / plan.FILE).read_bytes()
    draw(data / "train" / "s2" / "3.png", seed=999)
    known = {"budget": made.budget, "hours": 0.001, "val_share": 0.5, "progress": False}
    with pytest.raises(RunError, match="the images changed since the search began; put them back"):
        searching.search(data, out=folder, pool=Stub(), **known)
    assert (folder / plan.FILE).read_bytes() == kept
    assert not (folder / "trials").exists()


def test_a_latency_model_finds_the_worth_of_cycles_that_times_were_made_of():
    draw = random.Random(0)
    worth = {"window": 0.5, "pointwise": 2.0, "kernels": 0.1, "weights": 0.0}
    found = [{kind: draw.uniform(1, 100) for kind in worth} for _ in range(30)]
    times = [sum(worth[kind] * one[kind] for kind in worth) for one in found]
    made = latency_model.fit_model([architecture()] * 30, found, times)
    assert made.median_error < 0.02
    disturbed = latency_model.fit_model([architecture()] * 30, found, [3 * times[0], *times[1:]])
    assert disturbed.predict(found[0]) == pytest.approx(times[0], rel=0.1)
    assert made.predict(found[0]) == pytest.approx(times[0], rel=0.05)


def test_a_model_of_a_busy_machine_is_not_kept_and_is_timed_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LEANCNN_CACHE", str(tmp_path))
    draw, some = random.Random(0), [architecture(repeat=n) for n in range(20)]
    cycles = {one.key: {"window": draw.uniform(1, 100), "kernels": 5.0} for one in some}
    true = {key: 0.5 * each["window"] for key, each in cycles.items()}
    busy = {key: each * draw.choice((1, 10)) for key, each in true.items()}
    answers = iter([busy, busy, true])
    monkeypatch.setattr(latency_model, "sample", lambda many: some)
    monkeypatch.setattr(latency_model, "predicted_cycles", lambda *_, **__: cycles)
    monkeypatch.setattr(latency_model, "measured", lambda *_, **__: next(answers))
    for _ in range(2):
        with pytest.warns(UserWarning, match="was the machine busy"):
            latency_model.load_or_fit()
    model = latency_model.load_or_fit()
    assert model.median_error < 0.02
    assert latency_model.load_or_fit().factors == model.factors  # nothing is left to be timed


def test_programs_that_are_timed_are_spread_over_networks():
    picked = latency_model.sample(6)
    assert len({one.network for one in picked}) == len(picked) == 6
    assert picked == latency_model.sample(6)


def test_a_job_crosses_to_a_worker_and_back():
    job = Job(
        number=3,
        architecture=architecture(repeat=2),
        change=Change(2.0, 1.0, "more"),
        epochs=3,
        data="digits",
        folder="x",
        seed=0,
        split_seed=0,
        val_share=None,
    )
    assert Job.of_json(json.loads(json.dumps(job.to_json()))) == job
    assert dataclasses.asdict(Outcome(number=1, epochs=2)).keys() == set(Outcome.__slots__)
