"""Validates request bodies, a JSON list of [wire API, body] on standard input, against the request types of OpenAI's
Python package, which are generated from OpenAI's description of its API. Prints one JSON value per body: null, or why it
is not valid."""

import json
import sys

from openai.types.chat import completion_create_params as chat
from openai.types.responses import response_create_params as responses
from pydantic import ConfigDict, TypeAdapter, ValidationError

TYPES = {
    ("chat_completions", False): chat.CompletionCreateParamsNonStreaming,
    ("chat_completions", True): chat.CompletionCreateParamsStreaming,
    ("responses", False): responses.ResponseCreateParamsNonStreaming,
    ("responses", True): responses.ResponseCreateParamsStreaming,
}
for body_type in TYPES.values():
    body_type.__pydantic_config__ = ConfigDict(extra="forbid")
# They must outlive the validation: the elements of an iterable are validated when they are read.
ADAPTERS = {key: TypeAdapter(body_type) for key, body_type in TYPES.items()}


def read_all(value):
    if isinstance(value, dict):
        for element in value.values():
            read_all(element)
    elif not isinstance(value, (str, int, float, type(None))):
        for element in value:
            read_all(element)


def add_omitted(body):
    """Adds fields of the Responses API that its description requires, but the API does not; the packages of the AI SDK
    omit them."""
    for tool in body.get("tools", []):
        tool.setdefault("strict", None)
    for item in body["input"]:
        for part in item.get("content") or []:
            if isinstance(part, dict) and part["type"] == "input_image":
                part.setdefault("detail", "auto")


def problem_of(api, body):
    if api == "responses":
        add_omitted(body)
    try:
        read_all(ADAPTERS[api, body.get("stream", False)].validate_python(body))
    except ValidationError as error:
        return str(error)


for api, body in json.load(sys.stdin):
    print(json.dumps(problem_of(api, body)))
