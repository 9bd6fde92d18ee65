"""What each handler of an ONNX operator declares, and that nothing else is taken in silence."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import defs, helper

from leancnn.compiler.import_onnx import import_onnx
from leancnn.compiler.onnx_call import operators
from leancnn.errors import UnsupportedError
from tests.onnx_files import answers, classifier
from tests.onnx_styles import CHANNELS, OLDER, STYLES
from tests.test_import_onnx import agrees, noise, saved

pytest.importorskip("onnxruntime")


EVERY = defs.get_all_schemas_with_history()


def definitions(name):
    """All that the installed ONNX has of an operator, by the operator set that brought each."""
    return {s.since_version: s for s in EVERY if (s.name, s.domain) == (name, "")}


@pytest.mark.parametrize("name", sorted(operators))
def test_a_handler_declares_what_onnx_has(name):
    operator, known = operators[name], definitions(name)
    newest = defs.onnx_opset_version()
    assert {version for version in operator.sets if version <= newest} <= known.keys()
    attributes = {
        key for version in operator.sets & known.keys() for key in known[version].attributes
    }
    declared = operator.reads | operator.only.keys() | operator.hints
    assert attributes <= declared, "an attribute of a definition that it says to know"
    old = {key for schema in known.values() for key in schema.attributes}
    assert declared <= old | {"consumed_inputs", "broadcast"}, "an attribute that ONNX never had"


@pytest.mark.parametrize("name", sorted(operators))
def test_other_definitions_are_refused_by_the_operator_set(name):
    operator = operators[name]
    for version, schema in definitions(name).items():
        if version in operator.sets:
            operator.check(name, {}, version)
        elif not schema.deprecated:
            with pytest.raises(UnsupportedError, match=f"operator set {version} is not known"):
                operator.check(name, {}, version)


@pytest.mark.parametrize("name", sorted(operators))
def test_other_attributes_are_refused_by_name(name):
    operator = operators[name]
    newest = max(version for version in operator.sets if version <= defs.onnx_opset_version())
    with pytest.raises(UnsupportedError, match="gives it no attribute colour"):
        operator.check(name, {"colour": 1}, newest)
    for key, value in operator.only.items():
        sets = [
            v for v, s in definitions(name).items() if key in s.attributes and v in operator.sets
        ]
        operator.check(name, {key: value}, sets[0])
        with pytest.raises(UnsupportedError, match=f"its attribute {key} is 7"):
            operator.check(name, {key: 7}, sets[0])


def test_an_attribute_that_a_later_definition_brings_is_refused():
    """As if the handler of SpaceToDepth had been written before its mode was there."""
    operator = operators["SpaceToDepth"]
    if 28 not in definitions("SpaceToDepth"):
        pytest.skip("this ONNX has no SpaceToDepth of set 28")
    before = replace(operator, reads=frozenset(("blocksize",)))
    with pytest.raises(UnsupportedError, match=r"its attribute mode \(CRD\) is not known"):
        before.check("SpaceToDepth", {"blocksize": 2, "mode": b"CRD"}, 28)


def test_a_handler_that_reads_what_it_does_not_declare_fails(tmp_path, monkeypatch):
    operator = operators["LeakyRelu"]
    less = replace(operator, reads=frozenset(), hints=frozenset(("alpha",)))
    monkeypatch.setitem(operators, "LeakyRelu", less)
    with pytest.raises(AssertionError, match="alpha is read and not declared"):
        import_onnx(saved(classifier("h = LeakyRelu<alpha = 0.2>(f)"), tmp_path))


WORDS = ("none", "tanh", "DCR", "CRD", "nearest", "linear", "cubic", "constant", "reflect", "edge",
         "wrap", "half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric", "floor",
         "ceil", "round_prefer_ceil", "SAME_UPPER", "SAME_LOWER", "VALID")  # fmt: skip


def others(key, kind, value):
    """Other values that an attribute could have."""
    count = len(value) if isinstance(value, list) else 0
    if key == "num_outputs":  # the outputs of the node say it; ONNX looks no further for another
        return []
    match kind:
        case defs.OpSchema.AttrType.INT:
            return [0, 1, 2, 3, -1]
        case defs.OpSchema.AttrType.FLOAT:
            return [0.0, 0.5, 2.0, -1.0]
        case defs.OpSchema.AttrType.INTS:
            lists = [[1] * count, [2] * count, [*[1] * (count - 1), 2], [*range(count)][::-1]]
            return [one for one in lists if one and (min(one) > 0 or key in ("pads", "perm"))]
        case defs.OpSchema.AttrType.STRING:
            return WORDS
    return []


def valid(made):
    """Whether ONNX itself sees nothing wrong in a model: an engine is asked for no nonsense."""
    try:
        onnx.checker.check_model(made)
        onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True)
    except Exception:  # of several classes
        return False
    return True


def changed(made, place, key, value):
    node = made.graph.node[place]
    kept = [a for a in node.attribute if a.name != key]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(key, value)])
    return made


ALL = {**{n: (20, t) for n, t in STYLES.items()}, **OLDER}
FEW = ("ELU", "ceil mode", "depth to space", "GELU", "layer norm")


@pytest.mark.parametrize(
    "style", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in ALL]
)
def test_an_attribute_changes_the_answer_as_onnx_runtime_has_it_or_is_refused(style, tmp_path):
    """Every attribute of every operator of a style, to other values that ONNX Runtime takes."""
    opset, text = ALL[style]
    opset = OLDER[style][0] if style in OLDER else 13
    plain = classifier(text, opset=opset, channels=CHANNELS.get(style, 4))
    images = noise(1, 3, 8, 8)
    for place, node in enumerate(plain.graph.node[:-3]):
        if node.op_type in ("Constant", "If", "ConstantOfShape", "Concat"):
            continue
        schema = defs.get_schema(node.op_type, opset)
        there = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        for key, about in schema.attributes.items():
            for value in others(key, about.type, there.get(key)):
                made = classifier(text, opset=opset, channels=CHANNELS.get(style, 4))
                if not valid(changed(made, place, key, value)):
                    continue
                path = saved(made, tmp_path)
                try:
                    expected = answers(path, images)
                    graph = import_onnx(path).graph
                except Exception:  # refused by one of the two
                    continue
                if np.isfinite(expected).all():
                    assert agrees(graph, images, expected), (node.op_type, key, value)
