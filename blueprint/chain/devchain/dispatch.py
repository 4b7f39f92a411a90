"""The envelope of JSON-RPC 2.0: requests, notifications and batches to answers.

Invariant: every request that has an id gets exactly one answer, whatever else in its batch is wrong.
"""

import json
from collections.abc import Mapping

from blueprint.chain.devchain.engine import Engine
from blueprint.chain.devchain.errors import INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, JsonRpcError
from blueprint.chain.devchain.session import Session
from blueprint.foreign_json import parse_json

__all__ = ["MAX_BATCH", "answer"]

MAX_BATCH = 1_000
"""Requests in one batch; geth's own limit."""


async def answer(engine: Engine, payload: str | bytes, session: Session | None) -> str | None:
    """Answer one message; None when it holds only notifications.

    ``session`` is None where nothing can be pushed to the client (HTTP).
    """
    try:
        message: object = parse_json(payload)
    except (ValueError, RecursionError) as exc:
        return json.dumps(_failure(None, JsonRpcError(PARSE_ERROR, f"parse error: {exc}")))
    if not isinstance(message, list):
        single = await _answer_one(engine, message, session)
        return None if single is None else json.dumps(single)
    if not message:
        return json.dumps(_failure(None, JsonRpcError(INVALID_REQUEST, "empty batch")))
    if len(message) > MAX_BATCH:
        refusal = JsonRpcError(
            INVALID_REQUEST, f"batch too large: {len(message)} requests, limit {MAX_BATCH}"
        )
        return json.dumps(_failure(None, refusal))
    answers = [await _answer_one(engine, entry, session) for entry in message]
    given = [entry for entry in answers if entry is not None]
    return json.dumps(given) if given else None


async def _answer_one(engine: Engine, message: object, session: Session | None) -> object | None:
    if not isinstance(message, Mapping):
        return _failure(None, JsonRpcError(INVALID_REQUEST, "invalid request: expected an object"))
    identifier = message.get("id")
    if isinstance(identifier, bool) or not isinstance(identifier, str | int | float | None):
        return _failure(None, JsonRpcError(INVALID_REQUEST, "invalid request: id must be a string or number"))
    try:
        method, params = _read(message)
        result = await _perform(engine, method, params, session)
    except JsonRpcError as error:
        return _failure(identifier, error) if "id" in message or error.code == INVALID_REQUEST else None
    return {"jsonrpc": "2.0", "id": identifier, "result": result} if "id" in message else None


def _read(message: Mapping[str, object]) -> tuple[str, list[object]]:
    method, params = message.get("method"), message.get("params")
    if message.get("jsonrpc") != "2.0":
        raise JsonRpcError(INVALID_REQUEST, 'invalid request: expected "jsonrpc": "2.0"')
    if not isinstance(method, str):
        raise JsonRpcError(INVALID_REQUEST, "invalid request: expected a method name")
    if params is None:
        return method, []
    if not isinstance(params, list):
        raise JsonRpcError(INVALID_REQUEST, "invalid request: params must be a list")
    return method, params


async def _perform(engine: Engine, method: str, params: list[object], session: Session | None) -> object:
    if method not in ("eth_subscribe", "eth_unsubscribe"):
        return await engine.call(method, params)
    if session is None:
        raise JsonRpcError(METHOD_NOT_FOUND, "notifications not supported: subscribe over WebSocket")
    return session.subscribe(params) if method == "eth_subscribe" else session.unsubscribe(params)


def _failure(identifier: object, error: JsonRpcError) -> object:
    return {"jsonrpc": "2.0", "id": identifier, "error": error.as_json()}
