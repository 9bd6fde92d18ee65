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
    "a constant image": "h = Add(f, k_1_4_8_8)",
    "a constant row": "h = Mul(f, k_8)",
    "rows for columns": """a = Transpose<perm = [0, 1, 3, 2]>(f)
        h = Conv(a, k_4_4_3_3)""",
    "a mirror image": """s = Slice(f, i_m1, i_m99, i_3, i_m1)
        h = Concat<axis = 3>(f, s)""",
    "rows below rows": "h = Concat<axis = 2>(f, f)",
    "channels last, beside each other": """a = Transpose<perm = [0, 2, 3, 1]>(f)
        b = Relu(a)
        c = Concat<axis = 3>(a, b, k_1_8_8_2)
        d = Transpose<perm = [0, 3, 1, 2]>(c)
        h = Conv(d, k_4_10_3_3)""",
    "softmax of many": """a = Reshape(f, i_1_2_128)
        b = Softmax<axis = -1>(a)
        h = Reshape(b, i_1_4_8_8)""",
    "softmax of channels": "h = Softmax<axis = 1>(f)",
    "log softmax of rows": "h = LogSoftmax<axis = 2>(f)",
    "log softmax between": """p = GlobalAveragePool(f)
        v = Flatten(p)
        l = LogSoftmax<axis = 1>(v)
        u = Unsqueeze(l, i_2_3)
        h = Mul(f, u)""",
    "reflection": 'h = Pad<mode = "reflect">(f, i_0_0_1_2_0_0_3_1)',
    "edges": 'h = Pad<mode = "edge">(f, i_0_0_1_2_0_0_3_1)',
    "softplus": "h = Softplus(f)",
    "a logarithm": """a = Abs(f)
        b = Add(a, p_)
        h = Log(b)""",
    "depth to space": """a = Conv(f, k_12_4_3_3)
        h = DepthToSpace<blocksize = 2>(a)""",
    "depth to space by columns": """a = Conv(f, k_12_4_3_3)
        h = DepthToSpace<blocksize = 2, mode = "CRD">(a)""",
    "smaller, then as it was": """a = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(f)
        h = Resize<mode = "nearest", nearest_mode = "floor",
            coordinate_transformation_mode = "asymmetric">(a, , k_0, i_1_4_8_8)""",
    "twice as large by lines": """s = Constant<value_floats = [1.0, 1.0, 2.0, 3.0]>()
        h = Resize<mode = "linear">(f, , s)""",
    "twice as large, corners kept": """s = Constant<value_floats = [1.0, 1.0, 2.0, 2.0]>()
        h = Resize<mode = "linear", coordinate_transformation_mode = "align_corners">(f, , s)""",
    "lines of pytorch": """s = Constant<value_floats = [1.0, 1.0, 2.0, 2.0]>()
        h = Resize<mode = "linear",
            coordinate_transformation_mode = "pytorch_half_pixel">(f, , s)""",
    "uneven sizes, the nearest": "h = Resize(f, , , i_1_4_5_11)",
    "powers of every kind": """a = Abs(f)
        b = Constant<value_floats = [0.3, -1.5, 7.0, 0.0]>()
        c = Reshape(b, i_4_1_1)
        d = Add(a, p_)
        h = Pow(d, c)""",
    "a large power": """e = Constant<value_float = 11.0>()
        h = Pow(f, e)""",
    "a constant to a power": "h = Pow(p_4_1_1, f)",
    "where a constant says": """c = Constant<value = bool[4, 1, 1] {1, 0, 0, 1}>()
        a = Neg(f)
        h = Where(c, f, a)""",
    "where pixels are told": """c = Constant<value = bool[1, 8] {1, 0, 0, 1, 1, 1, 0, 0}>()
        h = Where(c, f, k_)""",
    "a transposed convolution": """h = ConvTranspose<strides = [2, 2], pads = [1, 1, 1, 1],
            output_padding = [1, 1]>(f, k_4_5_3_3, k_5)""",
    "transposed in groups, dilated": """h = ConvTranspose<strides = [3, 1], dilations = [1, 2],
            group = 2, pads = [0, 1, 2, 0]>(f, k_4_2_2_3)""",
    "pooling along one axis": """a = Reshape(f, i_1_4_64)
        b = MaxPool<kernel_shape = [3], strides = [2], pads = [1, 0]>(a)
        c = AveragePool<kernel_shape = [2], strides = [2]>(b)
        d = Unsqueeze(c, i_2)
        h = Relu(d)""",
    "the least of rows": """m = ReduceMin<axes = [2]>(f)
        h = Mul(f, m)""",
    "sums of sizes": """m = ReduceL1<axes = [1]>(f)
        n = ReduceSumSquare<axes = [2, 3]>(f)
        o = ReduceLogSumExp<axes = [1]>(f)
        a = Add(m, n)
        h = Mul(a, o)""",
    "the logarithm of a sum": """a = Abs(f)
        m = ReduceLogSum<axes = [1], keepdims = 1>(a)
        h = Mul(f, m)""",
    "cropped before a layer norm": """a = Slice(f, i_1_2, i_7_7, i_2_3)
        b = Transpose<perm = [0, 2, 3, 1]>(a)
        m = ReduceMean<axes = [-1]>(b)
        c = Sub(b, m)
        d = Mul(c, c)
        v = ReduceMean<axes = [-1]>(d)
        w = Add(v, p_)
        e = Sqrt(w)
        g = Div(c, e)
        h = Transpose<perm = [0, 3, 1, 2]>(g)""",
    "a matrix with a batch axis": """a = Reshape(f, i_1_32_8)
        b = MatMul(a, k_1_8_6)
        h = Reshape(b, i_1_4_8_6)""",
    "response of channels beside": "h = LRN<size = 3, alpha = 0.5, beta = 0.6, bias = 1.5>(f)",
    "a branch that is known": """c = Constant<value = bool {1}>()
        h = If(c) <then_branch = t () => (float[1, 4, 8, 8] a) { a = Relu(f) },
            else_branch = e () => (float[1, 4, 8, 8] b) { b = Neg(f) }>""",
    "constants of double precision": """d = Cast<to = 11>(k_4_1_1)
        e = Cast<to = 1>(d)
        h = Add(f, e)""",
}
CHANNELS = {
    "channels last, beside each other": 4,
    "depth to space": 3,
    "depth to space by columns": 3,
    "a transposed convolution": 5,
    "depth multiplier and dilation": 8,
    "every second pixel": 16,
}

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
    "dequantized weights": (13, "w = DequantizeLinear<axis = 0>(b_4_4_1_1, p_4)\nh = Conv(f, w)"),
    "dequantized weights, one scale": (10, "w = DequantizeLinear(b_4_4_1_1, p_)\nh = Conv(f, w)"),
    "group norm": (21, "h = GroupNormalization<num_groups = 2>(f, k_4, k_4)"),
    "space to depth by columns": (13, "a = SpaceToDepth<blocksize = 2>(f)\n"
                                      "h = DepthToSpace<blocksize = 2>(a)"),
    "upsample": (9, "s = Constant<value = float[4] {1, 1, 2, 2}>()\nh = Upsample(f, s)"),
    "upsample by lines": (9, "s = Constant<value = float[4] {1, 1, 2, 2}>()\n"
                             'h = Upsample<mode = "linear">(f, s)'),
    "resize of the first set": (10, "s = Constant<value = float[4] {1, 1, 2, 2}>()\n"
                                    'h = Resize<mode = "linear">(f, s)'),
    "GELU": (20, "h = Gelu(f)"),
    "GELU by tanh": (20, 'h = Gelu<approximate = "tanh">(f)'),
    "mish": (18, "h = Mish(f)"),
    "layer norm": (17, "p = GlobalAveragePool(f)\nv = Flatten(p)\nn = LayerNormalization(v, k_4)\n"
                       "u = Unsqueeze(n, i_2_3)\nh = Mul(f, u)"),
}  # fmt: skip
