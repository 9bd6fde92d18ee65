"""A network in an engine: what it says of itself, and one answer at a time."""

from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import pytest

from leancnn.engine_session import EngineSession
from leancnn.errors import DamagedError, MismatchError
from leancnn.preprocess import Preprocessing

PREPROCESSING = Preprocessing(size=(2, 2))
ABOUT = {"name": "two", "preprocessing": PREPROCESSING.to_json()}
IMAGES = np.zeros((3, *PREPROCESSING.shape), np.uint8)


def session(run=lambda images: np.tile(np.float32([0, 1]), (len(images), 1)), **fields):
    return EngineSession(run, ("a", "b"), lambda image: lambda: None, **{"about": ABOUT, **fields})


def test_probabilities_are_the_softmax_of_its_logits():
    np.testing.assert_allclose(
        session().probabilities(IMAGES), [[1 / (1 + np.e), np.e / (1 + np.e)]] * 3
    )


def test_where_users_call_another_entry_its_probabilities_are_the_answer():
    called = session(call=lambda images: np.full((len(images), 2), 0.5, np.float32))
    np.testing.assert_array_equal(called.probabilities(IMAGES), np.full((3, 2), 0.5))


def test_no_images_ask_the_engine_nothing():
    def run(images):
        raise AssertionError("asked")

    assert session(run).probabilities(IMAGES[:0]).shape == (0, 2)


def test_images_of_another_size_are_refused_by_its_name():
    with pytest.raises(MismatchError, match="two"):
        session().probabilities(np.zeros((1, 3, 3, 3), np.uint8))


@pytest.mark.parametrize("about", [{}, {"preprocessing": "lost"}])
def test_an_artifact_that_does_not_say_what_it_takes_is_damaged(about):
    with pytest.raises(DamagedError, match="does not say how a picture becomes its input"):
        session(about=about).pictures()


def test_an_engine_answers_one_question_at_a_time():
    at_work = Lock()

    def run(images):
        assert at_work.acquire(blocking=False)
        at_work.release()
        return np.zeros((len(images), 2), np.float32)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(session(run).logits, [IMAGES] * 40))
    assert len(answers) == 40
