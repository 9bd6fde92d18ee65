"""A CMake project around a C file: a package for find_package, a JNI class and a Swift example."""

from pathlib import Path

from leancnn.compiler.frame import GeneratedC
from leancnn.runs import atomic_write

LISTS = """# cmake -B build && cmake --build build && cmake --install build --prefix DIR
# elsewhere: find_package(@NAME@) and target_link_libraries(app PRIVATE @NAME@::@NAME@)
cmake_minimum_required(VERSION 3.16)
project(@NAME@ VERSION 1.0 LANGUAGES C)
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

option(@NAME@_NATIVE "for this machine's processor only, which is faster" OFF)
option(@NAME@_JNI "the library that Java and Kotlin load; needs jni.h, which the NDK has" OFF)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()

add_library(@NAME@ @NAME@.c)
add_library(@NAME@::@NAME@ ALIAS @NAME@)
target_include_directories(@NAME@ PUBLIC
  $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
set_target_properties(@NAME@ PROPERTIES
  C_STANDARD 11 POSITION_INDEPENDENT_CODE ON PUBLIC_HEADER @NAME@.h)
if(CMAKE_C_COMPILER_ID MATCHES "GNU|Clang")
  target_compile_options(@NAME@ PRIVATE
    -O3 -fno-math-errno -fno-trapping-math -ffp-contract=fast
    $<$<BOOL:${@NAME@_NATIVE}>:-march=native>)
endif()
if(UNIX)
  target_link_libraries(@NAME@ PUBLIC m)
endif()

if(@NAME@_JNI)
  add_library(@NAME@_jni SHARED jni/@NAME@_jni.c)
  target_link_libraries(@NAME@_jni PRIVATE @NAME@)
  if(NOT ANDROID)
    find_package(JNI REQUIRED)
    target_include_directories(@NAME@_jni PRIVATE ${JNI_INCLUDE_DIRS})
  endif()
endif()

set(place ${CMAKE_INSTALL_LIBDIR}/cmake/@NAME@)
install(TARGETS @NAME@ EXPORT @NAME@Targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT @NAME@Targets NAMESPACE @NAME@:: DESTINATION ${place})
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/@NAME@Config.cmake
  "include(\\"\\${CMAKE_CURRENT_LIST_DIR}/@NAME@Targets.cmake\\")\\n")
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/@NAME@ConfigVersion.cmake
  COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/@NAME@Config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/@NAME@ConfigVersion.cmake DESTINATION ${place})
"""
JNI = """/* The native half of Classifier.java: one call classifies a picture of any size. */
#include <jni.h>
#include <stdlib.h>
#include "@NAME@.h"

JNIEXPORT jint JNICALL Java_leancnn_Classifier_classify(
    JNIEnv *env, jclass own, jbyteArray rgb, jint width, jint height, jfloatArray probabilities)
{
    static uint8_t pixels[@NAME@_channels * @NAME@_height * @NAME@_width];
    float answers[@NAME@_classes];
    int best = 0;
    (void)own;
    if (width < 1 || height < 1 || (*env)->GetArrayLength(env, rgb) / 3 / width < height) return -1;
    if ((*env)->GetArrayLength(env, probabilities) < @NAME@_classes) return -1;
    jbyte *from = (*env)->GetByteArrayElements(env, rgb, NULL);
    void *scratch = malloc(@NAME@_scratch_bytes);
    const int done =
        from && scratch && @NAME@_preprocess((const uint8_t *)from, width, height, 0, pixels);
    if (done) {
        @NAME@_run(pixels, answers, scratch);
        (*env)->SetFloatArrayRegion(env, probabilities, 0, @NAME@_classes, answers);
        for (int i = 1; i < @NAME@_classes; i++)
            if (answers[i] > answers[best]) best = i;
    }
    free(scratch);
    if (from) (*env)->ReleaseByteArrayElements(env, rgb, from, JNI_ABORT);
    return done ? best : -1;
}

JNIEXPORT jstring JNICALL Java_leancnn_Classifier_label(JNIEnv *env, jclass own, jint number)
{
    (void)own;
    if (number < 0 || number >= @NAME@_classes) return NULL;
    return (*env)->NewStringUTF(env, @NAME@_class_names[number]);
}
"""
JAVA = """package leancnn;

/** The network: one picture at a time, as bytes of red, green and blue, row after row. */
public final class Classifier {
    public static final int CLASSES = @CLASSES@;

    static {
        System.loadLibrary("@NAME@_jni");
    }

    private Classifier() {}

    /** The number of the likeliest class, -1 for what is no picture; fills `probabilities`. */
    public static synchronized native int classify(
            byte[] rgb, int width, int height, float[] probabilities);

    /** The name of a class. */
    public static native String label(int number);
}
"""
MODULE = """module @NAME@ {
    header "../@NAME@.h"
    export *
}
"""
SWIFT = """// swiftc -I swift swift/example.swift @NAME@.o (or in Xcode: Import Paths = swift)
import @NAME@

/// The number of the likeliest class of a picture: bytes of red, green and blue, row after row.
func classify(rgb: [UInt8], width: Int32, height: Int32) -> Int? {
    guard width > 0, height > 0, rgb.count >= 3 * Int(width) * Int(height) else { return nil }
    let size = Int(@NAME@_channels.rawValue * @NAME@_height.rawValue * @NAME@_width.rawValue)
    var pixels = [UInt8](repeating: 0, count: size)
    var probabilities = [Float](repeating: 0, count: @CLASSES@)
    var scratch = [UInt8](repeating: 0, count: @SCRATCH@)
    guard @NAME@_preprocess(rgb, width, height, 0, &pixels) == 1 else { return nil }
    @NAME@_run(pixels, &probabilities, &scratch)
    return probabilities.indices.max { probabilities[$0] < probabilities[$1] }
}
"""
FILES = {
    "CMakeLists.txt": LISTS,
    "jni/@NAME@_jni.c": JNI,
    "java/leancnn/Classifier.java": JAVA,
    "swift/module.modulemap": MODULE,
    "swift/example.swift": SWIFT,
}


def write_project(written: GeneratedC, classes: int, folder: Path) -> Path:
    """The folder of a project, named after the network: C, header, CMake, JNI and Swift."""
    values = {
        "@NAME@": written.prefix,
        "@CLASSES@": str(classes),
        "@SCRATCH@": str(written.scratch_bytes),
    }
    texts = {**FILES, "@NAME@.c": written.source, "@NAME@.h": written.header}
    place = folder / written.prefix
    for name, text in texts.items():
        if name not in ("@NAME@.c", "@NAME@.h"):
            for key, value in values.items():
                text = text.replace(key, value)
        path = place / name.replace("@NAME@", written.prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text.encode())
    return place
