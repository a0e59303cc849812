"""What does a model on loopback say, in the words of each service?

Anthropic Messages, and of OpenAI Responses enough for Codex.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from khlone.loopback.caching import Parts
from khlone.values import dataclass, field

#: An event of a stream: its name and its content.
Event = tuple[str, Mapping[str, Any]]
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model says: `text`, then calls of `tools` as (name, input).

    A stream sends a word of the text every `pause_s` seconds. Without `input_tokens` the
    request is counted, four bytes a token; without `output_tokens` the words are.
    """

    text: str = "hello from loopback"
    tools: Sequence[tuple[str, Mapping[str, Any]]] = ()
    pause_s: float = 0.0
    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """How many tokens of output it has."""
        return len(self.words()) + 10 * len(self.tools) if self.output_tokens is None else self.output_tokens

    def words(self) -> list[str]:
        """The text in the pieces of a stream."""
        first, *others = self.text.split(" ")
        return [first, *(f" {word}" for word in others)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An answer that is an error, for example 429 or 529; `retry_after_s` and `headers` are sent along."""

    status: int
    message: str = "this was asked for"
    retry_after_s: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> Mapping[str, Any]:
        """What both services' clients can read."""
        kind = _KINDS.get(self.status, "api_error")
        return {"type": "error", "error": {"type": kind, "code": kind, "message": self.message}}


def message(answer: Answer, model: str, parts: Parts) -> dict[str, Any]:
    """A whole message, as it comes without a stream."""
    content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}]
    content += [
        {"type": "tool_use", "id": f"toolu_{secrets.token_hex(8)}", "name": name, "input": dict(given)}
        for name, given in answer.tools
    ]
    return {
        "id": f"msg_{secrets.token_hex(8)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": "tool_use" if answer.tools else "end_turn",
        "stop_sequence": None,
        "usage": {**_read(parts), "output_tokens": answer.tokens},
    }


def _read(parts: Parts) -> dict[str, int]:
    """The input of a message, in the words of its `usage`."""
    found = {"input_tokens": parts.input}
    if parts.read or parts.created:
        found |= {"cache_read_input_tokens": parts.read, "cache_creation_input_tokens": parts.created}
    return found


def message_events(answer: Answer, model: str, parts: Parts) -> Iterator[Event]:
    """The stream of a message."""
    whole = message(answer, model, parts)
    start = {**whole, "content": [], "stop_reason": None, "usage": {**_read(parts), "output_tokens": 1}}
    yield "message_start", {"message": start}
    for index, block in enumerate(whole["content"]):
        is_text = block["type"] == "text"
        empty = {**block, "text": ""} if is_text else {**block, "input": {}}
        yield "content_block_start", {"index": index, "content_block": empty}
        if is_text:
            deltas: list[dict[str, str]] = [{"type": "text_delta", "text": word} for word in answer.words()]
        else:
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        for delta in deltas:
            yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"delta": end, "usage": {"output_tokens": answer.tokens}}
    yield "message_stop", {}


def response(answer: Answer, model: str, parts: Parts) -> dict[str, Any]:
    """A whole response, as it comes without a stream."""
    said = {
        "id": f"msg_{secrets.token_hex(8)}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": answer.text, "annotations": []}],
    }
    calls = [
        {
            "id": f"fc_{secrets.token_hex(8)}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{secrets.token_hex(8)}",
            "name": name,
            "arguments": json.dumps(dict(given)),
        }
        for name, given in answer.tools
    ]
    return {
        "id": f"resp_{secrets.token_hex(8)}",
        "object": "response",
        "model": model,
        "status": "completed",
        "output": [said, *calls],
        "usage": {
            "input_tokens": parts.input,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": answer.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": parts.input + answer.tokens,
        },
    }


def response_events(answer: Answer, model: str, parts: Parts) -> Iterator[Event]:
    """The stream of a response."""
    whole = response(answer, model, parts)
    yield "response.created", {"response": {**whole, "status": "in_progress", "output": [], "usage": None}}
    for index, item in enumerate(whole["output"]):
        is_text = item["type"] == "message"
        empty = {**item, "status": "in_progress", **({"content": []} if is_text else {"arguments": ""})}
        yield "response.output_item.added", {"output_index": index, "item": empty}
        for word in answer.words() if is_text else []:
            place = {"item_id": item["id"], "output_index": index, "content_index": 0}
            yield "response.output_text.delta", {**place, "delta": word}
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield "response.completed", {"response": whole}
