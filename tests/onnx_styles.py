"""How exporters write the layers of classifiers, as the text of ONNX operators from `f` to `h`."""

STYLES = {
    "leaky ReLU": "h = LeakyRelu<alpha = 0.2>(f)",
    "PReLU of channels": "h = PRelu(f, k_4_1_1)",
    "PReLU of one slope": "h = PRelu(f, k_1)",
    "ELU": "h = Elu(f)",
    "SELU": "h = Selu(f)",
    "tanh": "h = Tanh(f)",
    "softsign": "h = Softsign(f)",
    "hard sigmoid as keras has it": "h = HardSigmoid<alpha = 0.2>(f)",
    "GELU spelt out": """s = Div(f, p_)
        e = Erf(s)
        a = Add(e, k_1)
        h = Mul(f, a)""",
    "clip without a low end": "h = Clip(f, , p_)",
    "a power": """a = Abs(f)
        e = Constant<value_float = 3.0>()
        h = Pow(a, e)""",
    "sums of three": """a = Relu(f)
        b = Sigmoid(f)
        h = Sum(f, a, b)""",
    "the largest of three": """a = Neg(f)
        h = Max(f, a, k_4_1_1)""",
    "constants first": """a = Sub(k_4_1_1, f)
        b = Mul(k_, a)
        c = Exp(b)
        h = Div(k_, c)""",
    "batch norms in a row": """a = BatchNormalization(f, k_4, k_4, k_4, p_4)
        b = BatchNormalization(a, k_4, k_4, k_4, p_4)
        h = BatchNormalization(b, p_4, k_4, k_4, p_4)""",
    "instance norm": "h = InstanceNormalization(f, k_4, k_4)",
    "asymmetric padding": """a = Conv<pads = [2, 0, 1, 3], strides = [2, 1]>(f, k_4_4_3_2)
        h = MaxPool<kernel_shape = [3, 3], pads = [0, 0, 1, 1], strides = [2, 2]>(a)""",
    "padding named by its side": """a = Conv<auto_pad = "SAME_LOWER",
            strides = [2, 2]>(f, k_4_4_4_4)
        h = AveragePool<auto_pad = "SAME_UPPER", kernel_shape = [3, 3], strides = [2, 2]>(a)""",
    "pad before convolution": """a = Pad(f, i_0_1_0_0_0_1_1_2)
        h = Conv<strides = [2, 2]>(a, k_4_6_3_3)""",
    "pad with a number, and cropping": """a = Pad(f, i_0_0_1_1_0_0_m1_1, k_)
        h = Conv(a, k_4_4_3_3)""",
    "pad that a maximum does not see": """i = Constant<value_float = -inf>()
        a = Pad(f, i_0_0_0_0_0_0_1_1, i)
        h = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(a)""",
    "ceil mode": """a = MaxPool<kernel_shape = [3, 3], strides = [3, 3], ceil_mode = 1>(f)
        h = AveragePool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1,
            pads = [1, 0, 0, 1], count_include_pad = 1>(a)""",
    "depth multiplier and dilation": """a = Conv<group = 4, pads = [2, 2, 2, 2],
            dilations = [2, 2]>(f, k_8_1_3_3)
        h = Conv<group = 8>(a, k_8_1_3_3)
        """,
    "a gate by Flatten and Reshape": """p = GlobalAveragePool(f)
        v = Flatten(p)
        g = Gemm<alpha = 0.5, beta = 2.0>(v, k_4_4, k_1_4)
        s = Sigmoid(g)
        u = Reshape(s, i_1_4_1_1)
        h = Mul(u, f)""",
    "a gate of pixels": """m = ReduceMean<axes = [1]>(f)
        n = ReduceMax<axes = [1]>(f)
        j = Concat<axis = 1>(m, n)
        c = Conv<pads = [1, 1, 1, 1]>(j, k_1_2_3_3)
        s = Sigmoid(c)
        h = Mul(s, f)""",
    "gates of rows and columns": """m = ReduceMean<axes = [2]>(f)
        n = ReduceMax<axes = [3]>(f)
        a = Mul(f, m)
        h = Mul(a, n)""",
    "a gate without a batch axis": """p = GlobalAveragePool(f)
        v = Squeeze(p)
        s = Sigmoid(v)
        u = Unsqueeze(s, i_0_2_3)
        h = Mul(u, f)""",
    "one channel for all": """g = Gather<axis = 1>(f, i_2)
        h = Mul(f, g)""",
    "a shuffle": """a = Reshape(f, i_0_2_2_8_8)
        b = Transpose<perm = [0, 2, 1, 3, 4]>(a)
        h = Reshape(b, i_0_m1_8_8)""",
    "halves by a computed place": """s = Shape(f)
        c = Gather(s, i_1)
        e = Constant<value_ints = [2]>()
        k = Div(c, e)
        z = Constant<value_ints = [0]>()
        a = Slice(f, z, k, i_1)
        b = Slice(f, k, c, i_1)
        h = Concat<axis = 1>(b, a)""",
    "parts without sizes": """a, b = Split<axis = 1>(f)
        h = Concat<axis = -3>(b, a)""",
    "channels backwards": """r = Constant<value_ints = [-9223372036854775807]>()
        h = Slice(f, i_m1, r, i_1, i_m1)""",
    "a pixel matrix, channels last": """a = Transpose<perm = [0, 2, 3, 1]>(f)
        b = MatMul(a, k_4_4)
        c = Add(b, k_4)
        d = Relu(c)
        h = Transpose<perm = [0, 3, 1, 2]>(d)""",
    "layer norm, channels last": """a = Transpose<perm = [0, 2, 3, 1]>(f)
        m = ReduceMean<axes = [-1]>(a)
        b = Sub(a, m)
        c = Mul(b, b)
        v = ReduceMean<axes = [-1]>(c)
        w = Add(v, p_)
        d = Sqrt(w)
        e = Div(b, d)
        s = Mul(e, k_4)
        h = Transpose<perm = [0, 3, 1, 2]>(s)""",
    "attention to two branches": """a = Relu(f)
        i = Unsqueeze(f, i_1)
        j = Unsqueeze(a, i_1)
        u = Concat<axis = 1>(i, j)
        m = ReduceMean<axes = [3, 4]>(u)
        s = Softmax<axis = 1>(m)
        r = Reshape(s, i_1_2_4_1_1)
        w = Mul(u, r)
        h = ReduceSum<keepdims = 0>(w, i_1)""",
    "a convolution along the channels": """p = GlobalAveragePool(f)
        a = Squeeze(p, i_3)
        b = Transpose<perm = [0, 2, 1]>(a)
        c = Conv<pads = [1, 1]>(b, k_1_1_3)
        d = Transpose<perm = [0, 2, 1]>(c)
        u = Unsqueeze(d, i_3)
        h = Mul(f, u)""",
    "zeros beside channels": """s = Shape(f)
        z = ConstantOfShape(s)
        j = Concat<axis = 1>(z, f)
        h = Conv(j, k_4_8_1_1)""",
    "every second pixel": "h = SpaceToDepth<blocksize = 2>(f)",
    "weights that are computed": """a = Exp(k_4_4_1_1)
        w = Transpose<perm = [1, 0, 2, 3]>(a)
        h = Conv(f, w)""",
    "a branch that is known": """c = Constant<value = bool {1}>()
        h = If(c) <then_branch = t () => (float[1, 4, 8, 8] a) { a = Relu(f) },
            else_branch = e () => (float[1, 4, 8, 8] b) { b = Neg(f) }>""",
    "constants of double precision": """d = Cast<to = 11>(k_4_1_1)
        e = Cast<to = 1>(d)
        h = Add(f, e)""",
}
CHANNELS = {"depth multiplier and dilation": 8, "every second pixel": 16}

OLDER = {
    "slices by attributes": (9, "h = Slice<starts = [0, 1], ends = [99, 7], axes = [2, 3]>(f)"),
    "clip by attributes": (7, "h = Clip<min = -0.2, max = 0.2>(f)"),
    "parts by attributes": (11, "a, b = Split<axis = 1, split = [1, 3]>(f)\n"
                                "h = Concat<axis = 1>(b, a)"),
    "pads by attributes": (9, "h = Pad<pads = [0, 0, 1, 1, 0, 0, 1, 2]>(f)"),
    "dropout with a mask": (9, "h, m = Dropout<ratio = 0.5>(f)"),
    "axes as an input": (18, "m = ReduceMean(f, i_2_3)\nh = Mul(f, m)"),
    "a part of a shape": (15, "s = Shape<start = 1>(f)\no = Constant<value_ints = [1]>()\n"
                              "t = Concat<axis = 0>(o, s)\nh = Reshape(f, t)"),
    "pads with axes": (18, "h = Pad(f, i_1_0_0_2, , i_2_3)"),
    "uneven parts": (18, "g = Slice(f, i_0, i_1, i_1)\nd = Concat<axis = 1>(f, g)\n"
                         "a, b = Split<axis = 1, num_outputs = 2>(d)\nc = Concat<axis = 1>(b, a)\n"
                         "h = Conv(c, k_4_5_1_1)"),
    "GELU": (20, "h = Gelu(f)"),
    "GELU by tanh": (20, 'h = Gelu<approximate = "tanh">(f)'),
    "mish": (18, "h = Mish(f)"),
    "layer norm": (17, "p = GlobalAveragePool(f)\nv = Flatten(p)\nn = LayerNormalization(v, k_4)\n"
                       "u = Unsqueeze(n, i_2_3)\nh = Mul(f, u)"),
}  # fmt: skip
