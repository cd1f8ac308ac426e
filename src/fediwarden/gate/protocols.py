"""The protocols in which the gate is asked, as one ASGI application; judges nothing, and says nothing about why."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from fediwarden.gate.core import Gate
from fediwarden.gate.forms import Header, Misread, Sent, said
from fediwarden.gate.secrets import Secrets

if TYPE_CHECKING:
    from fastapi import FastAPI

log = structlog.get_logger("fediwarden")

BEGAN = "began"  # when the connection came, where the server tells it: the deadline counts from there
CLAIMED = 200  # characters of a Content-Type that are kept
NEUTRAL = "This file was not accepted."
DRAINED = 1 << 20  # bytes of a stranger's body that are read, so that the answer is heard before the connection closes
DRAINING = 1.0  # seconds of that at most
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "It may be published."},
    404: {"description": "There is nothing here; also for a wrong secret."},
    406: {"description": "It may not be published. The text never says why."},
}


def application(gate: Gate, secrets: Secrets) -> "FastAPI":
    """The gate over HTTP. It serves no page, no description of itself, and no header that lets other sites' scripts ask it."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    app = FastAPI(title="Fediwarden gate", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)

    def answer(content: dict[str, str], status: int) -> JSONResponse:
        # no connection stays open between requests: none can be cut off by a restart while somebody begins to use it again
        return JSONResponse(content, status, {"Connection": "close"})

    async def nothing(request: Request) -> JSONResponse:
        await _drain(request)
        return answer({"msg": "not found"}, 404)

    @app.exception_handler(HTTPException)
    async def _plain(request: Request, error: HTTPException) -> JSONResponse:
        return await nothing(request) if error.status_code in (404, 405) else answer({"msg": NEUTRAL}, error.status_code)

    async def ask(face: str, secret: str, request: Request, passed: dict[str, str], refused: dict[str, str]) -> JSONResponse:
        began = request.scope.get("state", {}).get(BEGAN, time.monotonic())
        if not secrets.fit(secret):
            return await nothing(request)
        return answer(passed, 200) if await _asked(gate, face, request, began) else answer(refused, 406)

    @app.post("/validate/{secret}", responses=ANSWERS)
    async def validate(secret: str, request: Request) -> JSONResponse:
        """pict-rs' external validation: the stored bytes as they are, from 0.6 on in a form of one part; any 2xx lets them live."""
        return await ask("pict-rs", secret, request, {"msg": "ok"}, {"msg": NEUTRAL})

    @app.post("/api/v1/scan/{secret}", responses=ANSWERS)
    async def scan(secret: str, request: Request) -> JSONResponse:
        """The address of pictrs-safety, for pict-rs settings that point there. The id is one of our secrets.

        The bytes as they are, or a form of one part that holds them.
        """
        return await ask("pictrs-safety", secret, request, {"message": "Image OK"}, {"message": NEUTRAL})

    @app.get("/healthz", responses={200: {"description": "It takes requests."}})
    async def health() -> JSONResponse:
        """That it answers, and nothing else."""
        return answer({"msg": "ok"}, 200)

    return app


async def _asked(gate: Gate, face: str, request: Any, began: float) -> bool:
    """The gate's answer, given up as soon as the client hangs up: nobody would hear it."""
    from starlette.requests import ClientDisconnect

    whole = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in request.stream():
            if chunk:
                yield chunk
        whole.set()

    async def gone() -> None:
        await whole.wait()
        while (await request.receive())["type"] != "http.disconnect":
            continue

    judged = asyncio.create_task(_judged(gate, face, request.headers.raw, chunks(), began))
    left = asyncio.create_task(gone())
    try:
        await asyncio.wait([judged, left], return_when=asyncio.FIRST_COMPLETED)
        if judged.done():
            return judged.result()
    except ClientDisconnect:
        return False
    except Exception:  # the unknown: nothing passes that was not judged, and nobody learns what went wrong
        log.exception("an upload could not be judged")
        return False
    finally:
        left.cancel()
        if not judged.done():
            judged.cancel()
        await asyncio.gather(judged, left, return_exceptions=True)
    return False


async def _judged(gate: Gate, face: str, headers: Sequence[Header], chunks: AsyncIterator[bytes], began: float) -> bool:
    """What the gate says of the picture in a request."""
    sent = Sent(headers, chunks)
    try:
        async with asyncio.timeout(gate.left_to_read(began)):
            claimed = await sent.open()
        return await gate.judge(face, claimed[:CLAIMED], sent.data(), began)
    except TimeoutError:
        return await gate.unread(face, said(headers)[:CLAIMED], began)
    except Misread as error:
        with suppress(TimeoutError):  # whoever sends hears no answer before all is read
            async with asyncio.timeout(gate.left_to_read(began)):
                async for _ in chunks:
                    continue
        return await gate.misread(face, said(headers)[:CLAIMED], str(error), began)


async def _drain(request: Any) -> None:
    """Read what a stranger sends, within bounds."""
    from starlette.requests import ClientDisconnect

    left = DRAINED
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(DRAINING):
            async for chunk in request.stream():
                left -= len(chunk)
                if left < 0:
                    return
