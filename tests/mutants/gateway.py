"""Faults in what stands between callers and the models: keys, routes, sizes and bodies."""

from __future__ import annotations

from mutants import Mutant

GUARD = ("tests/test_serve_guard.py",)
BODY = ("tests/test_serve_request_body.py",)
COUNTERS = ("tests/test_serve_counters.py",)
KEYS = ("tests/test_serve_api_keys.py",)

MUTANTS = [
    Mutant(
        "adaptkit/serve/gateway/guard.py",
        "if not (route and route.open and exchange.method == route.method):",
        "if not (route and exchange.method == route.method):",
        GUARD,
    ),
    Mutant(
        "adaptkit/serve/gateway/guard.py",
        "if limit and size > limit:",
        "if limit and size > 2 * limit:",
        GUARD,
    ),
    Mutant(
        "adaptkit/serve/gateway/guard.py", '        check(scope["path"], parsed, self.limits)\n', "", GUARD
    ),
    Mutant("adaptkit/serve/gateway/guard.py", "[\\w.-]{1,100}", "[\\w.-]{1,1000}", GUARD),
    Mutant("adaptkit/serve/gateway/guard.py", "raise Refused(405, ", "raise Refused(404, ", GUARD),
    Mutant(
        "adaptkit/serve/gateway/request_body.py",
        "_at_most(body, field, limits.sequences)",
        "_at_most(body, field, limits.items)",
        BODY,
    ),
    Mutant(
        "adaptkit/serve/gateway/request_body.py",
        'if path == "/v1/embeddings" and',
        'if path == "/v1/completions" and',
        BODY,
    ),
    Mutant(
        "adaptkit/serve/gateway/request_body.py",
        "    if not math.isfinite(value):",
        "    if math.isnan(value):",
        BODY,
    ),
    Mutant(
        "adaptkit/serve/gateway/counters.py",
        "_Bucket(float(self.per_minute), now)",
        "_Bucket(float(2 * self.per_minute), now)",
        COUNTERS,
    ),
    Mutant("adaptkit/serve/api_keys.py", "os.O_EXCL, 0o600)", "os.O_EXCL, 0o644)", KEYS),
    Mutant("adaptkit/serve/api_keys.py", "mode=0o700)", "mode=0o755)", KEYS),
    Mutant("adaptkit/serve/api_keys.py", "0o022", "0o002", KEYS),
    Mutant("adaptkit/serve/api_keys.py", "SHORTEST = 16", "SHORTEST = 4", KEYS),
    Mutant(
        "adaptkit/serve/api_keys.py",
        "if path is None and os.environ.get(KEY_VARIABLE):",
        "if os.environ.get(KEY_VARIABLE):",
        KEYS,
    ),
]
