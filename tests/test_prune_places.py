"""Where a pruning stands: folders of its own, files of others, images that are there."""

import shutil
from importlib import import_module

import pytest

import leancnn
from leancnn import runs, weights
from leancnn.bench import untrained
from leancnn.cli import main
from leancnn.errors import RunError
from leancnn.prune.compare import compare
from leancnn.prune.run import default_criterion
from tests.few import few
from tests.tiny_gates import answer

pytestmark = pytest.mark.usefixtures("no_curves")


def test_a_saved_network_is_not_written_over_nor_taken_for_another(tmp_path, capsys):
    one, other, small = (tmp_path / name for name in ("one", "other", "small"))
    for place, factor in ((one, 1), (other, 2)):
        network = untrained("resnet8")
        network.body.get_parameter("conv1.weight").data *= factor
        weights.save(network, place)
    words = ["--criterion", "l1", "--keep-ratio", "0.5", "--no-time", "--out"]
    for out in (one, other):
        before = (out / "network.json").read_bytes()
        assert main(["prune", str(one), *words, str(out)]) == 1
        assert "holds something else" in capsys.readouterr().err
        assert (out / "network.json").read_bytes() == before
    assert main(["prune", str(one), *words, str(small)]) == 0
    (small / "plan.json").rename(small / ".plan.json.77.tmp")  # a kill before the plan was whole
    assert main(["prune", str(one), *words, str(small)]) == 0
    assert main(["prune", str(other), *words, str(small)]) == 1
    assert "another network" in capsys.readouterr().err
    renamed = untrained("resnet8")
    renamed.made = {"epoch": 3}  # of the same weights
    weights.save(renamed, tmp_path / "same")
    assert main(["prune", str(tmp_path / "same"), *words, str(small)]) == 0


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("weights.safetensors", "mine"),
        ("network.json", "[1]"),
        ("cut", "mine"),
        ("cut/notes.txt", "mine"),
        ("cut/network.json", "{}"),
        ("cut/weights.safetensors", "mine"),
    ],
)
def test_files_that_pruning_did_not_write_stay_as_they_are(tmp_path, capsys, file, text):
    weights.save(untrained("resnet8"), tmp_path / "whole")
    theirs = tmp_path / "out" / file
    theirs.parent.mkdir(parents=True)
    theirs.write_text(text)
    words = [
        "--criterion",
        "l1",
        "--keep-ratio",
        "0.5",
        "--no-time",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["prune", str(tmp_path / "whole"), *words]) == 1
    assert "holds something else" in capsys.readouterr().err
    assert theirs.read_text() == text


def test_a_schedule_is_refused_where_another_pruning_stands_before_its_first_step(tmp_path, capsys):
    wide = untrained("lbmbnet32_r6")
    weights.save(wide, tmp_path / "wide")
    words = ["prune", str(tmp_path / "wide"), "--criterion", "l1", "--no-time", "--out"]
    out = tmp_path / "out"
    assert main([*words, str(out), "--to-expansion", "2"]) == 0
    assert main([*words, str(out), "--schedule", "3,2"]) == 1
    assert "holds something else" in capsys.readouterr().err
    assert not (out / "iterations").exists()


@pytest.mark.parametrize("criterion", ["l1", "taylor"])
def test_images_that_are_not_there_are_no_wish(tmp_path, capsys, criterion):
    weights.save(untrained("resnet8"), tmp_path / "whole")
    words = ["--criterion", criterion, "--keep-ratio", "0.5", "--data", str(tmp_path / "nowhere")]
    for more in (["--out", str(tmp_path / "out")], ["--dry-run"]):
        assert main(["prune", str(tmp_path / "whole"), *words, *more]) == 1
        assert "nowhere" in capsys.readouterr().err
    assert main(["prune", "/", "--criterion", criterion, "--keep-ratio", "0.5"]) == 1
    assert "/: no run" in capsys.readouterr().err


def test_a_network_in_the_folder_where_one_stands_goes_beside_it(tmp_path, monkeypatch):
    weights.save(untrained("resnet8"), tmp_path / "small")
    monkeypatch.chdir(tmp_path / "small")
    assert main(["prune", ".", "--criterion", "l1", "--keep-ratio", "0.5", "--no-time"]) == 0
    assert (tmp_path / "small-l1-keep0.5" / "plan.json").exists()


def test_an_empty_name_is_not_beside_the_network(tmp_path, capsys):
    weights.save(untrained("resnet8"), tmp_path / "small")
    for words in (["--keep-ratio", "0.5"], ["--compare"]):
        assert main(["prune", str(tmp_path / "small"), *words, "--out", ""]) == 2
        assert "--out is empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_a_pruning_belongs_to_its_images_and_says_when_they_are_others(
    wide, pictures, tmp_path, capsys
):
    others = tmp_path / "others"
    shutil.copytree(pictures, others)
    for parts in (["--dry-run"], ["--out", str(tmp_path / "small")]):
        words = [
            "prune",
            str(wide),
            "--keep-ratio",
            "0.5",
            "--no-time",
            "--data",
            str(others),
            *parts,
        ]
        assert "scored on other images" not in str(answer(capsys, *words))
    first, *rest = sorted(path for path in others.rglob("*") if path.is_file())
    for path in rest:
        shutil.copy(first, path)
    assert main(words) == 1
    assert "holds another pruning (images" in capsys.readouterr().err
    found = answer(capsys, *words[:-2], "--dry-run")
    assert found["warnings"][0] == "scored on other images than the network was trained on"


def test_a_plan_that_does_not_fit_its_network_is_damaged(tmp_path, capsys):
    weights.save(untrained("resnet8"), tmp_path / "whole")
    words = [
        "prune",
        str(tmp_path / "whole"),
        "--criterion",
        "l1",
        "--keep-ratio",
        "0.5",
        "--no-time",
    ]
    words += ["--out", str(tmp_path / "small")]
    assert main(words) == 0
    plan = runs.read_json(tmp_path / "small" / "plan.json")
    plan["layers"][0]["kept"] = [0]
    runs.write_json(tmp_path / "small" / "plan.json", plan)
    assert main(words) == 1
    told = "it keeps 1 channels of 'conv1', and the network beside it has 8"
    assert told in capsys.readouterr().err


def test_no_pruning_lies_in_its_images(tmp_path, capsys):
    weights.save(untrained("resnet8"), tmp_path / "small")
    (tmp_path / "photos").mkdir()
    words = ["--criterion", "taylor", "--keep-ratio", "0.5", "--data", str(tmp_path / "photos")]
    out = tmp_path / "photos" / "cut"
    assert main(["prune", str(tmp_path / "small"), *words, "--out", str(out)]) == 1
    assert "lies in the data" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("compared", few([False, True]))
def test_two_prunings_do_not_write_into_one_folder(wide, tmp_path, monkeypatch, compared):
    out, said = tmp_path / "small", []
    module = import_module("leancnn.prune.run")
    cut = module.cut

    def meanwhile(*given, **named):
        """What another process would do while this one is at work."""
        other = compare if compared else leancnn.prune
        one = {"criteria": ["l1"], "timed": False} if compared else {"criterion": "l1"}
        with pytest.raises(RunError, match=r"in use by process \d+") as refused:
            other(wide, out=out, keep=0.5, progress=False, **one)
        said.append(str(refused.value))
        return cut(*given, **named)

    monkeypatch.setattr(module, "cut", meanwhile)
    leancnn.prune(wide, out=out, criterion="l1", keep=0.5, progress=False)
    assert len(said) == 1
    assert "\n" not in said[0]
    assert not (out / ".prune").exists()
    assert leancnn.prune(wide, out=out, criterion="l1", keep=0.5).folder == out


@pytest.mark.long
def test_a_pruned_network_knows_its_images_and_its_openings_are_counted(
    wide, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(wide / "best")  # a pruning of "here" is one of the run
    words = ["prune", ".", "--keep-ratio", "0.5", "--no-time", "--quiet"]
    assert answer(capsys, *words, "--dry-run")["criterion"] == "se_gate"
    assert answer(capsys, *words, "--criterion", "l1")["plans"]
    cut = next(wide.parent.glob("wide-l1-keep0.5"))
    data = weights.load(cut).known_data
    assert data == runs.read_json(wide / "run.json")["data"]["source"]
    monkeypatch.chdir(tmp_path)
    for opened in (1, 2):
        assert answer(capsys, "evaluate", str(cut))["uses"] == opened
    assert len(runs.evaluations(cut)) == 2
    again = tmp_path / "again"  # by a criterion that reads images, and without --data
    words = ["--criterion", "taylor", "--keep-ratio", "0.5", "--no-time", "--quiet", "--out"]
    assert main(["prune", str(cut), *words, str(again)]) == 0
    assert weights.load(again).known_data == data
    shutil.rmtree(cut)


@pytest.mark.parametrize(
    ("model", "criterion"),
    [("henet_r3", "taylor"), ("resnet8", "taylor"), ("lbmbnet59_r3", "se_gate")],
)
def test_the_criterion_that_nobody_names_fits_the_network(model, criterion):
    assert default_criterion(untrained(model)) == criterion


@pytest.mark.long
def test_the_readmes_words_cut_a_run_of_henet(pictures, tmp_path):
    from leancnn.train import train
    from tests.tiny import RECIPE

    recipe = RECIPE.changed(epochs=0.2, size=(31, 31), scale=(31, 31), pad=0)
    train(pictures, model="henet_r2", recipe=recipe, out=tmp_path / "a", progress=False)
    found = leancnn.prune(tmp_path / "a", out=tmp_path / "b", keep=0.5, progress=False)
    assert found.plans[0].criterion == "taylor"
    assert found.plans[0].after["trainable"] < found.plans[0].before["trainable"]
