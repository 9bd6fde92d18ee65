"""Random ONNX graphs that read their operands again, and what the compiler makes of them.

Constants are dyadic (eighths), so that sums and products of them round little or not at all, and
what differs from another engine is a wrong place, not a rounding.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from leancnn.compiled import CompiledNetwork
from leancnn.compiler.emit import emit
from leancnn.compiler.frame import Metadata
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.simplify import simplify
from leancnn.toolchain import compile_library

WIDTHS = (1, 4, 8, 16)  # floats in a vector
LAYOUTS = ("best", "planes", "blocked")
UNARY = ("Relu", "Sigmoid", "Tanh", "Mish", "HardSwish", "Softsign", "Elu", "Selu", "Celu", "Abs",
         "Softplus", "LeakyRelu", "Neg", "Erf", "Gelu", "HardSigmoid")  # fmt: skip
BINARY = ("Add", "Mul", "Sub", "Max", "Min")


class Drawing:
    """A graph as it is drawn: values (1, C, H, W) by name, operators in order."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights = [], []
        self.shape = (self.pick((1, 2, 3, 4)), self.pick((1, 2, 3, 5, 8, 9)), self.pick((2, 5, 7)))
        self.values = {"x": self.shape}
        for _ in range(self.pick(range(3, 12))):
            self.step()
        self.end()

    def pick(self, options):
        options = list(options)
        return options[self.random.integers(len(options))]

    def constant(self, *shape, positive=False):
        numbers = self.random.integers(1 if positive else -8, 9, shape) / 8
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(numbers.astype(np.float32), name))
        return name

    def whole(self, *numbers):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
        return name

    def add(self, kind, inputs, shape, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], f"n_{name}", **attributes))
        self.values[name] = shape
        return name

    def some(self, shape=None):
        """A value, mostly a late one; of a shape, if one has it."""
        fits = [n for n, s in self.values.items() if len(s) == 3 and (shape is None or s == shape)]
        late = fits[-3:] if self.random.random() < 0.7 else fits
        return self.pick(late)

    def step(self):
        x = self.some()
        c, h, w = self.values[x]
        ways = ["conv", "conv", "pointwise", "depthwise", "unary", "unary", "binary", "binary",
                "binary", "again", "gate", "take", "shuffle", "join", "affine"]  # fmt: skip
        if min(h, w) > 2:
            ways += ["crop", "pool", "strided"]
        if c * h * w < 300:
            ways += ["turn", "larger", "norm", "soft", "line"]
        getattr(self, "_" + self.pick(ways))(x, c, h, w)

    def _conv(self, x, c, h, w, stride=1):
        groups = self.pick([g for g in (1, 1, 2, c) if c % g == 0])
        wide = groups * self.pick((1, 2, 3, 5)) if groups > 1 else self.pick((1, 2, 4, 6, 17))
        k, pad = self.pick(((3, 1), (1, 0), (5, 2), (3, 1)))
        kernel = self.constant(wide, c // groups, k, k)
        bias = [self.constant(wide)] if self.pick((True, False)) else []
        size = ((h - 1) // stride + 1, (w - 1) // stride + 1)
        self.add("Conv", [x, kernel, *bias], (wide, *size), pads=[pad] * 4, group=groups,
                 strides=[stride] * 2)  # fmt: skip

    def _strided(self, x, c, h, w):
        self._conv(x, c, h, w, 2)

    def _pointwise(self, x, c, h, w):
        wide = self.pick((c, c, 3, 16, 20))
        self.add("Conv", [x, self.constant(wide, c, 1, 1)], (wide, h, w))

    def _depthwise(self, x, c, h, w):
        kernel = self.constant(c, 1, 3, 3)
        self.add("Conv", [x, kernel], (c, h, w), pads=[1] * 4, group=c)

    def _unary(self, x, c, h, w):
        self.add(self.pick(UNARY), [x], (c, h, w))

    def _binary(self, x, c, h, w):
        y = self.some((c, h, w))
        pair = [x, y] if self.pick((True, False)) else [y, x]
        self.add(self.pick(BINARY), pair, (c, h, w))

    def _again(self, x, c, h, w):
        """x·f(x) + x, or the like: what ends here is read twice in the kernel that ends it."""
        made = self.add(self.pick(UNARY), [x], (c, h, w))
        made = self.add(self.pick(BINARY), self.pick(([made, x], [x, made])), (c, h, w))
        if self.pick((True, False)):
            self.add(self.pick(BINARY), self.pick(([made, x], [x, made])), (c, h, w))

    def _gate(self, x, c, h, w):
        """Squeeze and excitation, by channel; or one channel for all."""
        if self.pick((True, True, False)):
            pool = self.add("GlobalAveragePool", [x], (c, 1, 1))
            less = self.add("Conv", [pool, self.constant(2, c, 1, 1)], (2, 1, 1))
            bent = self.add("Relu", [less], (2, 1, 1))
            more = self.add("Conv", [bent, self.constant(c, 2, 1, 1)], (c, 1, 1))
            gate = self.add("Sigmoid", [more], (c, 1, 1))
        else:
            kind = self.pick(("ReduceMean", "ReduceMax", "ReduceL2", "ReduceMin"))
            gate = self.add(kind, [x, self.whole(1)], (1, h, w))
        self.add("Mul", self.pick(([x, gate], [gate, x])), (c, h, w))

    def _take(self, x, c, h, w):
        places = self.random.integers(0, c, self.pick(range(1, c + 2)))
        self.add("Gather", [x, self.whole(*places)], (len(places), h, w), axis=1)

    def _shuffle(self, x, c, h, w):
        groups = self.pick([g for g in range(1, c + 1) if c % g == 0])
        split = self.whole(1, groups, c // groups, h, w)
        a = self.add("Reshape", [x, split], ())
        b = self.add("Transpose", [a], (), perm=[0, 2, 1, 3, 4])
        self.add("Reshape", [b, self.whole(1, c, h, w)], (c, h, w))

    def _join(self, x, c, h, w):
        others = [n for n, s in self.values.items() if len(s) == 3 and s[1:] == (h, w)]
        parts = [x, *(self.pick(others[-4:]) for _ in range(self.pick((1, 2))))]
        wide = sum(self.values[part][0] for part in parts)
        if wide < 60:
            self.add("Concat", parts, (wide, h, w), axis=1)

    def _affine(self, x, c, h, w):
        names = [self.constant(c), self.constant(c), self.constant(c)]
        variance = self.constant(c, positive=True)
        self.add("BatchNormalization", [x, *names, variance], (c, h, w))

    def _crop(self, x, c, h, w):
        top, left = self.pick((0, 1)), self.pick((0, 1))
        high, wide = self.pick((h, h - 1)), self.pick((w, w - 1))
        limits = self.whole(top, left), self.whole(high, wide), self.whole(2, 3)
        self.add("Slice", [x, *limits], (c, high - top, wide - left))

    def _pool(self, x, c, h, w):
        kind, pad = self.pick(("MaxPool", "AveragePool")), self.pick((0, 1))
        stride = self.pick((1, 2))
        size = [(n + 2 * pad - 3) // stride + 1 for n in (h, w)]
        self.add(kind, [x], (c, *size), kernel_shape=[3, 3], strides=[stride] * 2, pads=[pad] * 4)

    def _turn(self, x, c, h, w):
        if self.pick((True, False)):
            self.add("Transpose", [x], (c, w, h), perm=[0, 1, 3, 2])
        else:
            limits = [self.whole(-1), self.whole(-99), self.whole(3), self.whole(-1)]
            self.add("Slice", [x, *limits], (c, h, w))

    def _larger(self, x, c, h, w):
        if self.pick((True, False)):
            scales = self.constant(4)
            self.weights[-1] = numpy_helper.from_array(np.float32([1, 1, 2, 2]), scales)
            mode = self.pick(("nearest", "linear"))
            self.add("Resize", [x, "", scales], (c, 2 * h, 2 * w), mode=mode)
        else:
            kernel = self.constant(c, 3, 2, 2)
            self.add("ConvTranspose", [x, kernel], (3, 2 * h, 2 * w), strides=[2, 2])

    def _norm(self, x, c, h, w):
        names = [self.constant(c), self.constant(c)]
        self.add("InstanceNormalization", [x, *names], (c, h, w), epsilon=0.5)

    def _soft(self, x, c, h, w):
        self.add("Softmax", [x], (c, h, w), axis=self.pick((1, 2, 3)))

    def _line(self, x, c, h, w):
        self.add("Mul", [x, self.constant(1, 1, h, w)], (c, h, w))

    def end(self):
        """A flattening of what comes last, as it is or before a matrix; of two values, at times."""
        parts = [list(self.values)[-1], self.some()]
        parts = parts[: self.pick((1, 1, 2))]
        flat = []
        for part in parts:
            c, h, w = self.values[part]
            if c * h * w > 400:
                part, h, w = self.add("GlobalAveragePool", [part], (c, 1, 1)), 1, 1
            flat.append(self.add("Flatten", [part], (c * h * w,)))
        count = sum(self.values[part][0] for part in flat)
        last = self.add("Concat", flat, (count,), axis=1) if len(flat) > 1 else flat[0]
        if self.pick((True, False)):
            last = self.add("Gemm", [last, self.constant(count, 5), self.constant(5)], (5,))
        self.last = last

    def model(self):
        """The drawing as a model from x to its last value."""
        start = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *self.shape])
        end = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "random", [start], [end], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def native(graph, layout, width):
    """The C of a graph, its values laid out so, with vectors of so many floats."""
    small = simplify(graph)
    channels, answers = graph.shapes[graph.input][0], graph.shapes[graph.output][0]
    metadata = Metadata(
        name="net",
        classes=tuple(f"class {i}" for i in range(answers)),
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
    source = emit(schedule(lower(small), layout=layout), metadata).source
    flags = ("-std=c11", "-O1", "-march=native", "-ffp-contract=fast", f"-DLANES={width}")
    return CompiledNetwork(compile_library(source, name="net", flags=flags))
