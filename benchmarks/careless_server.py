"""The server that anyone would write, as a control: stock uvicorn, Pillow as it comes, no limits.

python benchmarks/careless_server.py LIBRARY PORT
"""

import io
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent)]

import numpy as np  # noqa: E402
import uvicorn  # noqa: E402
from PIL import Image  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.concurrency import run_in_threadpool  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402

from leancnn.compiled import CompiledNetwork  # noqa: E402


def app(network: CompiledNetwork) -> Starlette:
    """`POST /predict`: the body, or the form's first file, is opened and classified."""
    _, h, w = network.shape

    def classified(data: bytes) -> dict[str, object]:
        image = Image.open(io.BytesIO(data)).convert("RGB").resize((w, h))
        row = network(np.asarray(image)[None])[0]
        top = [
            {"label": network.classes[k], "probability": float(row[k])} for k in (-row).argsort()
        ]
        return {"predictions": [{"label": top[0]["label"], "top": top[:5]}]}

    async def predict(request: Request) -> JSONResponse:
        kind = request.headers.get("content-type", "")
        if kind.startswith("multipart/"):
            form = await request.form(max_files=100_000)
            data = await next(iter(form.values())).read()  # type: ignore[union-attr]
        else:
            data = await request.body()
        return JSONResponse(await run_in_threadpool(classified, data))

    async def page(request: Request) -> JSONResponse:
        return JSONResponse({"page": "x" * 20_000})

    routes = [Route("/predict", predict, methods=["POST"]), Route("/page.mjs", page)]
    return Starlette(routes=routes)


if __name__ == "__main__":
    uvicorn.run(
        app(CompiledNetwork(Path(sys.argv[1]))), port=int(sys.argv[2]), log_level="critical"
    )
