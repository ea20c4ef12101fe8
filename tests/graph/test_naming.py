import onnx

from amct_lite.graph.passes.naming import name_nodes


def _names(*given: str) -> list[str]:
    graph = onnx.GraphProto()
    for name in given:
        graph.node.add(op_type="Relu", name=name)
    name_nodes(graph)
    return [node.name for node in graph.node]


def test_unnamed_nodes_get_type_and_position() -> None:
    assert _names("", "a", "") == ["Relu_0", "a", "Relu_2"]


def test_double_names_get_a_suffix() -> None:
    assert _names("a", "a", "a", "b") == ["a", "a_1", "a_2", "b"]


def test_made_up_names_avoid_given_ones() -> None:
    assert _names("", "Relu_0", "a", "a", "a_1") == ["Relu_0_1", "Relu_0", "a", "a_2", "a_1"]


def test_unique_names_stay() -> None:
    graph = onnx.GraphProto()
    graph.node.add(op_type="Relu", name="x")
    assert not name_nodes(graph)
