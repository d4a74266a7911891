"""The one error that ends a request at the gate, written as OpenAI's clients read it."""

from __future__ import annotations

import json

ERROR_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class Refused(Exception):
    """A request that is answered with an error and goes no further."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, headers: dict[str, str] | None = None
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.headers = status, message, param, headers or {}

    def body(self) -> bytes:
        return error_body(self.status, self.message, self.param)


def error_body(status: int, message: str, param: str | None = None) -> bytes:
    """Write an error as OpenAI's clients read it."""
    general = "server_error" if status >= 500 else "invalid_request_error"
    fields = {"message": message, "type": ERROR_TYPES.get(status, general), "param": param, "code": status}
    return json.dumps({"error": fields}).encode()
