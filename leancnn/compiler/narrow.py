"""Register tiles for vectors of four floats and few registers, as WebAssembly has them."""

from leancnn.compiler.graph import Graph
from leancnn.compiler.layout import Layout
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule


def narrow_tiles(graph: Graph, layout: Layout = "best") -> dict[str, tuple[int, int]]:
    """The tile of each shape of convolution in a simplified graph, by `tile_key`."""
    program = lower(graph)
    schedule(program, layout=layout)
    found = {kernel.tile_key: kernel.narrow_tile() for kernel in program.kernels if kernel.tile_key}
    return {key: tile for key, tile in found.items() if tile is not None}
