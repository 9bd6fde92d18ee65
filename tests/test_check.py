"""The data doctor: every fault that was put in is found and named, and a sound set passes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from oddities import odd_files
from photos import draw, nfd, photos
from PIL import Image

from leancnn.check import Report, check
from leancnn.data import load_dataset
from leancnn.data._near_copies import near_copies, thumbnail
from leancnn.errors import DataError
from leancnn.preprocess import Preprocessing

Found = set[tuple[str, tuple[str, ...]]]


def found(report: Report, where: str = "problems") -> Found:
    return {(finding.kind, finding.files) for finding in getattr(report, where)}


def test_a_sound_folder_passes(tmp_path: Path) -> None:
    report = check(photos(tmp_path))
    assert report.ok
    assert report.problems == report.warnings == ()
    assert report.counts == {"train": {"s2": 5, "s10": 5}, "test": {"s2": 5, "s10": 5}}
    assert report.sizes == {"6×8": 20}
    assert report.modes == {"PNG RGB": 20}
    assert report.text().splitlines()[-1] == "go"


def test_every_unreadable_file_is_named_with_its_reason(tmp_path: Path) -> None:
    root = photos(tmp_path)
    (root / "train" / "s2" / "0.png").write_bytes(b"")
    whole = (root / "test" / "s10" / "1.png").read_bytes()
    (root / "test" / "s10" / "1.png").write_bytes(whole[:80])
    (root / "test" / "s2" / "new.heic").write_bytes(b"?")
    (root / "train" / "s10" / "gone.jpg").symlink_to("nowhere")
    report = check(root)
    assert not report.ok
    assert found(report) == {
        ("unreadable", (name,))
        for name in (
            "train/s2/0.png",
            "test/s10/1.png",
            "test/s2/new.heic",
            "train/s10/gone.jpg",
        )
    }
    assert "train/s2/0.png: empty file (0 bytes)" in report.text()
    assert report.counts["train"]["s2"] == 4


@pytest.mark.parametrize(
    ("rename", "says"),
    [
        (("test/s2", "test/S2"), "test has class 'S2' where train has 's2'"),
        (("test/s2", "test/more"), "test has class 'more', which train does not have"),
        (("train/s2", "elsewhere"), "test has class 's2', which train does not have"),
    ],
)
def test_classes_that_differ_are_named(tmp_path: Path, rename: tuple[str, str], says: str) -> None:
    root = photos(tmp_path)
    (root / rename[0]).rename(root / rename[1])
    report = check(root)
    assert not report.ok
    assert says in {finding.text.split(";")[0] for finding in report.problems}


def test_one_name_in_two_unicode_forms_is_a_problem_and_across_parts_it_is_one_name(
    tmp_path: Path,
) -> None:
    root = photos(tmp_path)
    draw(root / "train" / "é" / "0.png", 71)
    draw(root / "train" / "é" / "2.png", 74)
    draw(root / "test" / nfd("é") / "0.png", 72)
    assert check(root).ok
    draw(root / "train" / nfd("é") / "1.png", 73)
    assert {finding.kind for finding in check(root).problems} == {"classes"}


def test_empty_classes_and_classes_without_a_readable_image_are_problems(tmp_path: Path) -> None:
    root = photos(tmp_path)
    for part in ("train", "test"):
        (root / part / "void").mkdir()
    for path in (root / "test" / "s2").iterdir():
        path.write_bytes(b"")
    texts = [finding.text for finding in check(root).problems if finding.kind == "empty class"]
    assert sorted(texts) == [
        "test: class 's2' has no readable image",
        "test: class 'void' has no images",
        "train: class 'void' has no images",
    ]


def test_the_same_picture_in_train_and_test_is_found_by_its_pixels(tmp_path: Path) -> None:
    root = photos(tmp_path)
    with Image.open(root / "train" / "s2" / "3.png") as image:
        image.save(root / "test" / "s2" / "copy.bmp")
        image.convert("RGBA").save(root / "train" / "s10" / "copy.webp", lossless=True)
    report = check(root)
    (problem,) = report.problems
    assert problem.kind == "copy across parts"
    assert set(problem.files) == {
        "train/s2/3.png",
        "test/s2/copy.bmp",
        "train/s10/copy.webp",
    }


def test_copies_inside_a_part_are_warnings(tmp_path: Path) -> None:
    root = photos(tmp_path)
    data = (root / "train" / "s2" / "3.png").read_bytes()
    (root / "train" / "s2" / "again.png").write_bytes(data)
    assert {finding.kind for finding in check(root).warnings} == {"copy"}
    (root / "train" / "s10" / "again.png").write_bytes(data)
    report = check(root)
    assert report.ok
    assert {finding.kind for finding in report.warnings} == {"copy in two classes"}


def test_copies_that_the_cut_of_an_unsplit_folder_tears_apart_are_a_problem(tmp_path: Path) -> None:
    root = photos(tmp_path, ("",))
    seen = set()
    twin = root / "s2" / "twin.png"
    for number in range(5):
        twin.write_bytes((root / "s2" / f"{number}.png").read_bytes())
        tested = load_dataset(root, Preprocessing(size=(6, 8)), parts=("test",)).test
        assert tested is not None
        split_apart = (f"s2/{number}.png" in tested.files) != ("s2/twin.png" in tested.files)
        assert check(root).ok is not split_apart
        seen.add(split_apart)
    assert seen == {True, False}


def test_odd_ways_to_store_pixels_are_warned_of_and_counted(tmp_path: Path) -> None:
    root = photos(tmp_path)
    for case in odd_files(root / "train" / "s2", 1):
        if case.pixels is None and case.path.is_dir():
            case.path.rmdir()
        elif case.pixels is None:
            case.path.unlink()
    report = check(root)
    assert report.ok
    texts = {finding.text.split(":")[0] for finding in report.warnings}
    assert texts >= {
        "16-bit scaled to 8",
        "EXIF orientation applied",
        "alpha composited on the background",
        "CMYK converted to RGB",
        "first frame of several",
        "suffix of another format",
    }
    assert (
        sum(report.modes.values())
        == sum(report.sizes.values())
        == sum(sum(own.values()) for own in report.counts.values())
    )


@pytest.mark.slow
def test_every_odd_file_of_a_folder_is_used_or_listed(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    cases = list(odd_files(root / "train" / "s2", 4))
    names = {str(case.path.relative_to(root)): case for case in cases}
    report = check(root)
    unreadable = {name for finding in report.problems for name in finding.files}
    bad = {name for name, case in names.items() if case.pixels is None and case.kind != "folder"}
    assert bad == unreadable
    loaded = load_dataset(root, Preprocessing(size=(6, 8)), parts=("train",), max_bad_share=1)
    skipped = {item["file"] for item in loaded.manifest["skipped"]}
    assert skipped == unreadable
    assert loaded.train is not None
    assert {*loaded.train.files} & {*names} == {n for n, c in names.items() if c.pixels is not None}


def test_uneven_classes_small_images_and_stray_files_are_warnings(tmp_path: Path) -> None:
    root = photos(tmp_path)
    (root / "README").write_text("stray")
    for number in range(60):
        draw(root / "train" / "s2" / f"more{number}.png", 500 + number, (40, 40))
    report = check(root, preprocessing=Preprocessing(size=(31, 31), scale=(32, 32)))
    assert report.ok
    assert {finding.kind for finding in report.warnings} == {"stray", "uneven classes", "as stored"}
    assert "enlarged to 32×32: 20 of 80 images" in report.text()


def test_an_empty_or_partless_folder_is_no_go(tmp_path: Path) -> None:
    assert not check(tmp_path).ok
    assert not check(photos(tmp_path / "a", ("test",))).ok
    assert not check(photos(tmp_path / "b", ("",), each=1)).ok


def test_the_digits_pass_and_count(tmp_path: Path) -> None:
    report = check("digits")
    assert report.ok
    assert sum(sum(own.values()) for own in report.counts.values()) == 1797


def test_a_source_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DataError, match="did you mean 'digits'"):
        check("digitz")
    with pytest.raises(DataError, match="no folder"):
        check("no/where")


def test_the_report_is_json_and_safe_to_print(tmp_path: Path) -> None:
    root = photos(tmp_path)
    for part in ("train", "test"):
        (root / part / "s2").rename(root / part / "a\x1b[31m\nb\udcff")
    (root / "train" / "a\x1b[31m\nb\udcff" / "0.png").write_bytes(b"")
    report = check(root)
    values = json.loads(json.dumps(report.to_json()))
    assert values["ok"] is False
    assert values["problems"][0]["files"] == ["train/a\x1b[31m\nb\udcff/0.png"]
    assert all(line.isprintable() for line in report.text().split("\n"))
    assert r"train/a\x1b[31m\nb\udcff/0.png: empty file" in report.text()


def test_the_text_names_some_and_the_json_all(tmp_path: Path) -> None:
    root = photos(tmp_path)
    for number in range(50):
        (root / "train" / "s2" / f"bad{number}.png").write_bytes(b"")
    report = check(root)
    assert len(report.to_json()["problems"]) == 50
    assert report.text().count("problem: unreadable: train") == 20
    assert "and 30 more (--json names them all)" in report.text()


@pytest.mark.parametrize(
    ("parts", "each"), [(("",), 1), (("",), 2), (("train", "test"), 1), (("train", "val"), 1)]
)
def test_what_check_passes_training_takes_and_the_other_way_round(
    tmp_path: Path, parts: tuple[str, ...], each: int
) -> None:
    root = photos(tmp_path / "few", parts, each=each)
    report = check(root)
    if report.ok:
        load_dataset(root, Preprocessing(size=(6, 8)))
    else:
        assert {finding.kind for finding in report.problems} == {"too few"}
        with pytest.raises(DataError, match="another is needed"):
            load_dataset(root, Preprocessing(size=(6, 8)))


def test_one_class_is_a_problem_for_check_and_for_training(tmp_path: Path) -> None:
    root = photos(tmp_path)
    for part in ("train", "test"):
        shutil.rmtree(root / part / "s10")
    report = check(root)
    assert "one class, 's2'; a classifier tells two or more apart" in report.text()
    assert report.text().endswith("no go: 1 problem")
    with pytest.raises(DataError, match="one class, 's2'"):
        load_dataset(root, Preprocessing(size=(6, 8)))


def test_classes_that_differ_in_case_or_spaces_only_are_warned_of(tmp_path: Path) -> None:
    root = photos(tmp_path)
    for part, seed in (("train", 81), ("test", 91)):
        draw(root / part / "S2" / "0.png", seed)
        draw(root / part / "S2" / "1.png", seed + 1)
    report = check(root)
    assert report.ok
    (warning,) = [finding.text for finding in report.warnings if finding.kind == "alike"]
    assert warning == "'S2' and 's2' are 2 classes; merge them if they are one"


def test_parts_by_other_names_are_not_taken_for_classes(tmp_path: Path) -> None:
    folders = [(part, name) for part in ("training_set", "test_set") for name in ("cat", "dog")]
    for number, (part, name) in enumerate(folders):
        for seed in range(3):
            draw(tmp_path / "photos" / part / name / f"{seed}.png", 10 * number + seed)
    report = check(tmp_path / "photos")
    assert not report.ok
    assert "rename them (test_set test, training_set train)" in report.text()
    with pytest.raises(DataError, match="taken for classes"):
        load_dataset(tmp_path / "photos", Preprocessing(size=(6, 8)))
    (tmp_path / "photos" / "training_set").rename(tmp_path / "photos" / "train")
    (tmp_path / "photos" / "test_set").rename(tmp_path / "photos" / "test")
    assert "named  cat, dog" in check(tmp_path / "photos").text()


def test_classes_that_are_called_like_parts_stay_classes(tmp_path: Path) -> None:
    for name in ("train_station", "test_tube"):
        for seed in range(10):
            draw(tmp_path / name / f"{seed}.png", len(name) * 100 + seed)
    assert check(tmp_path).ok


def scene(seed: int, size: tuple[int, int] = (90, 120)) -> Image.Image:
    """Blots of colour, smooth as a photograph is; another for every seed."""
    blots = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(blots).resize(size[::-1], Image.Resampling.BICUBIC)


CHANGES = {
    "again.jpg": lambda image: image,
    "brighter.png": lambda image: image.point(lambda value: min(value * 1.15 + 5, 255)),
    "smaller.png": lambda image: image.resize((64, 48), Image.Resampling.BICUBIC),
    "larger.jpg": lambda image: image.resize((240, 180), Image.Resampling.LANCZOS),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_slightly_changed_copy_in_another_part_is_warned_of(tmp_path: Path, name: str) -> None:
    root = photos(tmp_path)
    for part, label, seed in (("train", "s2", 1), ("train", "s10", 2), ("test", "s2", 3)):
        scene(seed).save(root / part / label / "scene.png")
    CHANGES[name](scene(1)).save(root / "test" / "s2" / name)
    report = check(root)
    (warning,) = report.warnings
    assert report.ok
    assert warning.kind == "near copy across parts"
    assert set(warning.files) == {"train/s2/scene.png", f"test/s2/{name}"}
    assert "nearly the same picture in train and test: " in report.text()


def test_near_copies_are_grouped_and_exact_ones_stand_with_them(tmp_path: Path) -> None:
    root = photos(tmp_path)
    for number in range(3):
        scene(5).save(root / "train" / "s2" / f"near{number}.jpg", quality=60 + 15 * number)
    shutil.copy(root / "train" / "s2" / "near0.jpg", root / "train" / "s2" / "same.jpg")
    names = {f"train/s2/{name}.jpg" for name in ("near0", "near1", "near2", "same")}
    warnings = {finding.kind: set(finding.files) for finding in check(root).warnings}
    assert warnings == {"copy": {"train/s2/near0.jpg", "train/s2/same.jpg"}, "near copy": names}
    scene(5).save(root / "train" / "s10" / "near.webp")
    assert "near copy in two classes" in {finding.kind for finding in check(root).warnings}


@pytest.mark.parametrize("size", [16, 32])
def test_of_two_million_pairs_of_other_pictures_none_is_taken_for_a_near_copy(size: int) -> None:
    rng = np.random.default_rng(size)
    noise = [thumbnail(rng.integers(0, 256, (size, size, 3), np.uint8)) for _ in range(1000)]
    scenes = [thumbnail(np.asarray(scene(seed, (size, size)))) for seed in range(1000)]
    flat = [thumbnail(np.full((size, size, 3), level, np.uint8)) for level in range(50)]
    assert near_copies(noise + scenes + flat) == []
    assert near_copies([noise[0], *scenes, noise[0]]) == [[0, 1001]]


def test_sizes_stand_in_the_order_of_size_with_the_frequent_ones_shown(tmp_path: Path) -> None:
    root = photos(tmp_path)
    for number in range(9):
        draw(root / "train" / "s2" / f"wide{number}.png", 600 + number, (10 - number, 9))
        if number:
            draw(root / "train" / "s2" / f"twice{number}.png", 700 + number, (10 - number, 9))
    report = check(root)
    areas = [int(h) * int(w) for h, w in (size.split("×") for size in report.sizes)]
    assert areas == sorted(areas)
    assert report.sizes["6×8"] == 20
    (line,) = [line for line in report.text().splitlines() if line.startswith("  h × w")]
    assert line == "  h × w  2×9 2, 3×9 2, 4×9 2, 5×9 2, 6×8 20, 6×9 2, and 4 more"
