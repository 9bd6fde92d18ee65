"""Constants in C text are the floats they stand for, in every bit."""

import ctypes

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from leancnn.compiler.literals import byte_array, decimals
from leancnn.toolchain import compile_library


def odd_floats(count, seed=0):
    """Floats of every exponent and sign, and those whose bytes are quotes, digits and escapes."""
    bits = np.random.default_rng(seed).integers(0, 2**32, count, np.uint32)
    words = [b'"\\?\x00', b"0123", b"\x00\x0017", b"\n??/"]
    hostile = np.frombuffer(b"".join(words), np.uint32)
    bits[: 4 * len(hostile)] = np.tile(hostile, 4)
    values = bits.view(np.float32)
    return values[np.isfinite(values)]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_decimals_come_back_by_way_of_a_double(values):
    array = np.array(values, np.float32)
    back = np.array([float(word) for word in decimals(array)], np.float64).astype(np.float32)
    assert np.array_equal(back.view(np.uint32), array.view(np.uint32))


def test_decimals_are_short():
    assert decimals(np.array([0.1, -0.25, 3, 0, -1e-10, 10.5], np.float32)) == [
        ".1",
        "-.25",
        "3",
        "0",
        "-1e-10",
        "10.5",
    ]


def test_a_string_of_bytes_is_the_floats():
    values = odd_floats(3001)
    source = (
        "#define ALIGNED(n) _Alignas(n)\n"
        + byte_array("w", values)
        + "const float *get(void); const float *get(void) "
    )
    library = compile_library(
        source + "{ return w.f; }", name="bytes", flags=("-std=c11", "-Wall", "-Wextra", "-Werror")
    )
    get = ctypes.CDLL(str(library)).get
    get.restype = ctypes.POINTER(ctypes.c_uint32 * len(values))
    assert np.array_equal(np.array(get().contents), values.view(np.uint32))
