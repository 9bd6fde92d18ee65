"""The compiler: a trained network in, one C file out. Read in the order of the data:

import_torch or import_onnx → graph → simplify → eliminate → lower → memory → emit → toolchain.
"""
