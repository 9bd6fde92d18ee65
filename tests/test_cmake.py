"""The CMake project around a C file builds, is found, and answers; also for phones."""

import shutil
import subprocess
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from leancnn import toolchain
from leancnn.export import export
from tests.compiler_saved import network, on_shelf

APP = """
cmake_minimum_required(VERSION 3.16)
project(app C)
find_package(speck 1.0 REQUIRED)
add_executable(app app.c)
target_link_libraries(app PRIVATE speck::speck)
"""
MAIN = """
#include <stdio.h>
#include <speck.h>
int main(void)
{
    static unsigned char picture[40 * 50 * 3], pixels[8 * 8 * 3], scratch[1 << 20];
    float p[speck_classes];
    for (int i = 0; i < 40 * 50 * 3; i++) picture[i] = (unsigned char)(i * 7 + (i >> 4));
    if (!speck_preprocess(picture, 40, 50, 0, pixels)) return 1;
    speck_run(pixels, p, scratch);
    for (int i = 0; i < speck_classes; i++) printf("%.9g ", p[i]);
    return 0;
}
"""
JNI = """
#include <stdint.h>
#include <stddef.h>
#define JNIEXPORT __attribute__((visibility("default")))
#define JNICALL
#define JNI_ABORT 2
typedef int32_t jint; typedef int8_t jbyte; typedef float jfloat; typedef void *jclass, *jstring;
typedef void *jbyteArray, *jfloatArray, *jarray;
struct JNINativeInterface_;
typedef const struct JNINativeInterface_ *JNIEnv;
struct JNINativeInterface_ {
    jint (*GetArrayLength)(JNIEnv *, jarray);
    jbyte *(*GetByteArrayElements)(JNIEnv *, jbyteArray, unsigned char *);
    void (*ReleaseByteArrayElements)(JNIEnv *, jbyteArray, jbyte *, jint);
    void (*SetFloatArrayRegion)(JNIEnv *, jfloatArray, jint, jint, const jfloat *);
    jstring (*NewStringUTF)(JNIEnv *, const char *);
};
"""
LIBC = {
    "math.h": "float expf(float), sqrtf(float), logf(float), log1pf(float), powf(float, float);\n"
    '#define INFINITY __builtin_inff()\n#define NAN __builtin_nanf("")\n'
    "#define isnan(x) __builtin_isnan(x)\n",
    "string.h": "#include <stddef.h>\nvoid *memcpy(void *, const void *, size_t);\n"
    "void *memset(void *, int, size_t);",
    "stdlib.h": "#include <stddef.h>\nvoid *malloc(size_t); void free(void *);",
    "jni.h": JNI,
}


@pytest.fixture(scope="module")
def net():
    off = on_shelf()
    yield network()
    off()


@pytest.fixture
def project(net, tmp_path):
    (place,) = export(net, to="c", out=tmp_path, cmake=True)
    return place


def expected(net):
    picture = np.array([(i * 7 + (i >> 4)) & 255 for i in range(40 * 50 * 3)], np.uint8)
    pixels = net.preprocessing.window(net.preprocessing.of_array(picture.reshape(50, 40, 3))[None])
    with torch.inference_mode():
        return net(torch.from_numpy(np.array(pixels))).softmax(1)[0].numpy()


def test_a_project_holds_a_package_a_class_for_java_and_a_module_for_swift(project):
    names = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert names == {
        *("CMakeLists.txt", "speck.c", "speck.h", "jni/speck_jni.c"),
        *("java/leancnn/Classifier.java", "swift/module.modulemap", "swift/example.swift"),
    }
    for path in project.rglob("*"):
        assert not path.is_file() or "@NAME@" not in path.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake")
def test_the_package_is_found_and_answers_as_pytorch(net, project, tmp_path):
    def cmake(*words):
        subprocess.run(["cmake", *map(str, words)], check=True, capture_output=True)

    cmake("-S", project, "-B", tmp_path / "b", f"-DCMAKE_INSTALL_PREFIX={tmp_path / 'installed'}")
    cmake("--build", tmp_path / "b")
    cmake("--install", tmp_path / "b")
    app = tmp_path / "app"
    app.mkdir()
    (app / "CMakeLists.txt").write_text(APP)
    (app / "app.c").write_text(MAIN)
    cmake("-S", app, "-B", tmp_path / "c", f"-DCMAKE_PREFIX_PATH={tmp_path / 'installed'}")
    cmake("--build", tmp_path / "c")
    done = subprocess.run([tmp_path / "c" / "app"], check=True, capture_output=True, text=True)
    np.testing.assert_allclose(np.array(done.stdout.split(), float), expected(net), atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("ziglang"), reason="needs ziglang")
def test_the_c_and_its_jni_compile_for_android(project, tmp_path):
    compiler = toolchain.find_cross_compiler()
    for name, text in LIBC.items():  # zig has no headers of Android's; these declare what is used
        (tmp_path / name).write_text(text)
    flags = ["-target", "aarch64-linux-android", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
    for source in (project / "speck.c", project / "jni" / "speck_jni.c"):
        words = [*flags, f"-I{tmp_path}", f"-I{project}", "-c", str(source), "-o"]
        built = tmp_path / f"{source.stem}.o"
        toolchain.run_compiler([*words, str(built)], compiler)
        assert built.read_bytes()[18:20] == b"\xb7\x00"  # ELF's number for 64-bit Arm


@pytest.mark.slow
@pytest.mark.skipif(
    not (find_spec("ziglang") and shutil.which("qemu-aarch64")), reason="needs ziglang and qemu"
)
def test_a_64_bit_arm_answers_as_pytorch(net, project, tmp_path):
    (tmp_path / "app.c").write_text(MAIN)
    words = ["-target", "aarch64-linux-musl", "-static", "-O2", f"-I{project}", "-o"]
    sources = [str(tmp_path / "app.c"), str(project / "speck.c")]
    toolchain.run_compiler(
        [*words, str(tmp_path / "app"), *sources], toolchain.find_cross_compiler()
    )
    done = subprocess.run(
        ["qemu-aarch64", str(tmp_path / "app")], check=True, capture_output=True, text=True
    )
    np.testing.assert_allclose(np.array(done.stdout.split(), float), expected(net), atol=1e-5)
