"""The routes. What they do lies beside: schemas reads bodies, jobs makes images, response answers, store keeps them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from sampan import __version__
from sampan.data.pictures import load_rgb
from sampan.errors import ApiError, SampanError, StoreError
from sampan.serve import bodies, keys, schemas
from sampan.serve.metrics import CONTENT_TYPE
from sampan.serve.middleware import Middleware
from sampan.serve.pages import list_sizes, loaded_loras
from sampan.serve.request import build_request, check_painted, fit, max_area_px
from sampan.serve.response import respond
from sampan.serve.scheduler import Scheduler
from sampan.serve.server import ServerState
from sampan.serve.settings import Settings
from sampan.serve.store import FORMATS, ImageStore

log = logging.getLogger("sampan.serve")
_SWEEP_S = 30.0
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorOut, "description": words}
    for status, words in {
        400: "Something asked for is wrong",
        401: "A key is needed, or not known",
        403: "The name or the origin is not ours",
        404: "There is no such picture or model",
        413: "The body is too large",
        429: "This key asks too much",
        500: "The server failed",
        503: "The queue is full, time is over, the store cannot be used, or the server loads or ends",
        507: "The disk is full",
    }.items()
}
Handler = Callable[[Request], Awaitable[Response]]


def build(server: ServerState) -> FastAPI:
    """Return the application."""

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        server.started = int(time.time())
        server.secret = server.store.secret()
        server.scheduler = Scheduler(server.engine, server.settings.limits)
        server.engine.observe = server.metrics.step
        server.scheduler.start()
        sweeping = asyncio.create_task(_sweep(server.store))
        try:
            yield
        finally:
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping
            await asyncio.to_thread(server.scheduler.stop)
            await server.finish_background()
            server.store.close()

    app = FastAPI(
        title="Sampan",
        version=__version__,
        description="Pictures from prompts: OpenAI's images API, with fields of its own beside it.",
        docs_url=None,
        redoc_url=None,
        lifespan=living,
        separate_input_output_schemas=False,
    )
    _api(app, server)
    _health(app, server)
    server.pages.add_to(app)
    app.add_exception_handler(SampanError, _refused)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    app.add_middleware(Middleware, settings=server.settings, metrics=server.metrics)  # type: ignore[arg-type]
    return app


async def _sweep(store: ImageStore) -> None:
    while True:
        await asyncio.sleep(_SWEEP_S)
        try:
            await asyncio.to_thread(store.sweep)
        except StoreError as error:
            log.warning("old pictures could not be removed: %s", "; ".join([error.what, *error.because]))
        except Exception:
            log.exception("old pictures could not be removed")


def _api(app: FastAPI, server: ServerState) -> None:
    settings, config = server.settings, server.engine.pipeline.config
    built = partial(
        build_request,
        settings=settings,
        config=config,
        can_proofread=server.engine.proofread is not None,
        can_enhance=server.enhance is not None,
    )

    @app.post(
        "/v1/images/generations",
        response_model=schemas.ImagesOut,
        responses=_errors(400, 401, 403, 404, 413, 429, 500, 503, 507),
        openapi_extra=_json_body(schemas.GenerationBody),
    )
    async def generations(request: Request) -> Response:
        """Paint pictures from a prompt. With `stream`, the answer is server-sent events."""
        owner = await server.owner(request)
        fields = await bodies.read_generation(request)
        _check_model(fields.model, settings)
        asked = await asyncio.to_thread(built, "generation", owner, fields)
        await asyncio.to_thread(check_painted, asked, server.engine.pipeline)
        return await respond(server, request, asked)

    @app.post(
        "/v1/images/edits",
        response_model=schemas.ImagesOut,
        responses=_errors(400, 401, 403, 404, 413, 429, 500, 503, 507),
        openapi_extra=_edit_body(),
    )
    async def edits(request: Request) -> Response:
        """Paint from reference pictures, uploaded or earlier ones. With `stream`, the answer is server-sent events."""
        owner = await server.owner(request)
        body = await bodies.read_edit(request, settings, server.fetch, partial(fit, config=config))
        fields = body.fields
        _check_model(fields.model, settings)
        earlier = [await _load_earlier(server, owner, picture_id) for picture_id in fields.reference_ids or ()]
        references = (*earlier, *body.images)
        if not references:
            raise ApiError(400, "missing_image", "An edit needs an image, or reference_ids.", "image")
        mask = None
        if body.mask_file is not None:
            mask = await bodies.read_mask(body.mask_file, settings, references[0].size)
        shape = None if earlier else body.shape
        asked = await asyncio.to_thread(
            built, "edit", owner, fields, references, mask, shape=shape
        )  # it scales references
        await asyncio.to_thread(check_painted, asked, server.engine.pipeline)
        return await respond(server, request, asked)

    @app.get("/v1/models", responses=_errors(400, 401, 403, 503, 507))
    async def models(request: Request) -> schemas.ModelsOut:
        """List the names under which the model is served."""
        await server.owner(request)
        return schemas.ModelsOut(data=[schemas.ModelOut(id=name, created=server.started) for name in settings.names])

    @app.get("/v1/models/{name:path}", responses=_errors(400, 401, 403, 404, 503, 507))
    async def model(request: Request, name: str) -> schemas.ModelOut:
        """Describe a model."""
        await server.owner(request)
        _check_model(name, settings)
        return schemas.ModelOut(id=name, created=server.started)

    @app.get("/v1/history", responses=_errors(400, 401, 403, 503, 507))
    async def history(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        before: Annotated[str | None, Query(max_length=64)] = None,
    ) -> schemas.History:
        """List your finished pictures, newest first."""
        owner = await server.owner(request)
        records, more = await asyncio.to_thread(server.store.history, owner, limit, before)
        entries = [schemas.HistoryEntry(**vars(record), url=server.url(request, record.id)) for record in records]
        return schemas.History(data=entries, has_more=more)

    @app.get(
        "/v1/images/{picture_id}",
        response_class=Response,
        responses={
            200: {"content": {f"image/{kind}": {} for kind in FORMATS}, "description": "The picture"},
            **_errors(400, 401, 403, 404, 503, 507),
        },
    )
    async def image(
        request: Request,
        picture_id: str,
        until: Annotated[str | None, Query(max_length=20)] = None,
        signature: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Response:
        """Return a picture's bytes."""
        if keys.is_signed(server.secret, picture_id, until, signature, server.store.clock.now()):
            owner = await asyncio.to_thread(server.store.owner_of, picture_id)
        else:
            owner = await server.owner(request)
        record = await asyncio.to_thread(server.store.record, owner, picture_id) if owner else None
        content = await asyncio.to_thread(server.store.content, record) if record else None
        if record is None or content is None:
            raise _no_picture()
        headers = {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(content, media_type=f"image/{record.output_format}", headers=headers)

    @app.delete("/v1/images/{picture_id}", responses=_errors(400, 401, 403, 404, 503, 507))
    async def remove(request: Request, picture_id: str) -> schemas.Removed:
        """Forget a picture."""
        owner = await server.owner(request)
        record = await asyncio.to_thread(server.store.record, owner, picture_id)
        if record is None:
            raise _no_picture()
        await asyncio.to_thread(server.store.remove, record)
        return schemas.Removed(id=picture_id)

    @app.get("/v1/capabilities", responses=_errors(400, 403, 503, 507))
    async def capabilities() -> schemas.Capabilities:
        """Say what this server can do; needs no key."""
        return schemas.Capabilities(
            model=settings.model,
            default_size=f"{config.geometry.default_px}x{config.geometry.default_px}",
            sizes=list_sizes(config.geometry.default_px, config.geometry.prior_px, max_area_px(settings, config)),
            max_n=settings.max_n,
            max_references=settings.max_references,
            max_prompt_chars=schemas.MAX_PROMPT_CHARS,
            supports_mask=True,
            needs_key=await server.needs_key(),
            reports=schemas.Reports(**server.pages.reports),
            examples=list(server.engine.pipeline.folder.knows.examples),
            loras=[
                schemas.LoadedLora(name=name, scale=scale) for name, scale in loaded_loras(server.engine.pipeline.loras)
            ],
        )


def _health(app: FastAPI, server: ServerState) -> None:
    @app.get("/health", responses=_errors(400, 403))
    async def health() -> dict[str, str]:
        """Say that the process is alive."""
        return {"status": "ok"}

    @app.get("/ready", responses=_errors(400, 403, 503))
    async def ready() -> dict[str, str]:
        """Say that pictures are taken on."""
        scheduler = server.scheduler
        if scheduler.draining or scheduler.broken is not None or not scheduler.loaded:
            why = "ends" if scheduler.draining else "is broken" if scheduler.broken is not None else "loads the model"
            raise ApiError(503, "not_ready", f"The server {why}.", retry_after_s=5)
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response, responses=_errors(400, 403))
    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        server.metrics.under_way.set(server.scheduler.num_under_way)
        server.metrics.waiting.set(server.scheduler.num_waiting)
        return Response(server.metrics.text(), media_type=CONTENT_TYPE)


async def _load_earlier(server: ServerState, owner: str, picture_id: str) -> Any:
    """Return an earlier picture of the same owner as a reference."""
    record = await asyncio.to_thread(server.store.record, owner, picture_id)
    content = await asyncio.to_thread(server.store.content, record) if record else None
    if content is None:
        raise ApiError(404, "picture_not_found", f"There is no picture `{picture_id}`.", "reference_ids")
    return await asyncio.to_thread(load_rgb, content)


def _check_model(name: str | None, settings: Settings) -> None:
    if name is not None and name not in settings.names:
        names = " or ".join(f"`{name}`" for name in settings.names)
        raise ApiError(404, "model_not_found", f"The model served here is {names}.", "model")


def _no_picture() -> ApiError:
    return ApiError(404, "picture_not_found", "There is no such picture.", "id")


# --- errors and descriptions ----------------------------------------------------------------------------------------------


async def _refused(_: Request, error: Exception) -> Response:
    """Answer what this server does not do, or the model cannot do."""
    assert isinstance(error, SampanError)
    if isinstance(error, StoreError):
        log.warning("a request met a store that fails: %s", "; ".join([error.what, *error.because]))
        error = error.answer()
    answer = error if isinstance(error, ApiError) else ApiError.of(error)
    return JSONResponse(answer.body(), answer.status, answer.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """Answer wrong parameters as everything else that is wrong."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = str(first["loc"][-1])[:100]
    return await _refused(request, ApiError(400, "invalid_value", f"`{param}`: {first['msg']}.", param))


def _described(app: FastAPI) -> dict[str, Any]:
    """Return the description without the 422 that the framework would answer: it is 400 here, in OpenAI's shape."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for methods in schema["paths"].values():
            for about in methods.values():
                about["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: ("not_found", "There is nothing here."), 405: ("method_not_allowed", "This is asked in another way.")}
    code, message = codes.get(error.status_code, ("error", str(error.detail)))
    refusal = ApiError(error.status_code, code, message)
    return JSONResponse(refusal.body(), error.status_code, dict(error.headers or {}))


async def _gone(_: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _failed(_: Request, error: Exception) -> Response:
    # the trace goes into the server's log, not to the client
    return JSONResponse(ApiError(500, "internal_error", "The server failed.").body(), 500)


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _ERRORS[status] for status in statuses}


def _json_body(model: type[schemas.ImageFields]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _schema(model)}}}}


def _edit_body() -> dict[str, Any]:
    """Return the description of an edit's body: a form with files, or JSON with addresses."""
    form, as_json = _schema(schemas.EditFields), _schema(schemas.EditFields)
    file = {"type": "string", "format": "binary"}
    words = "Pictures to edit, PNG, JPEG or WebP: files, data: addresses, or others where --allow-urls is on"
    several = {"type": "array", "items": file}
    form["properties"] |= {
        "image": {**several, "description": f"{words}. images and image[0], image[1] … are the same"},
        "image[]": {**several, "description": "The same, as OpenAI's clients name several"},
        "mask": {**file, "description": "Transparent where the first image may change"},
    }
    form["additionalProperties"] = {"type": "string", "maxLength": 0}  # a field that was left empty
    form["patternProperties"] = {r"^images?(\[[0-9]{0,3}\])?$": several}
    address = {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {"image_url": {"type": "string"}},
                "required": ["image_url"],
                "additionalProperties": False,
            },
        ]
    }
    as_json["properties"] |= {
        "images": {
            "type": "array",
            "items": address,
            "description": f"{words}. `image` is the same, for one or several",
        },
        "image": {"anyOf": [address, {"type": "array", "items": address}]},
        "mask": {**address, "description": "Transparent where the first image may change"},
    }
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": as_json}}
    return {"requestBody": {"required": True, "content": content}}


def _schema(model: type[schemas.ImageFields]) -> dict[str, Any]:
    schema = model.model_json_schema()
    assert "$defs" not in schema, "a schema without references can stand where it is used"
    return schema | {"additionalProperties": {"type": "null"}}  # a field of any name without a value is not sent
