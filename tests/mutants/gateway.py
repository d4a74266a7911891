"""Faults in what stands between callers and the models: keys, routes, sizes, rates and bodies."""

from __future__ import annotations

from mutants import Mutant

KEY_FILE = "adaptkit/serve/api_keys.py"
GUARD_FILE = "adaptkit/serve/gateway/guard.py"
BODY_FILE = "adaptkit/serve/gateway/request_body.py"
ROUTES_FILE = "adaptkit/serve/gateway/routes.py"
PROMPTS_FILE = "adaptkit/serve/gateway/text_prompts.py"
COUNTERS_FILE = "adaptkit/serve/gateway/counters.py"
KEYS = ("tests/test_serve_api_keys.py",)
GUARD = ("tests/test_serve_guard.py",)
BODY = ("tests/test_serve_request_body.py",)
ROUTES = ("tests/test_serve_routes.py",)
PROMPTS = ("tests/test_serve_text_prompts.py",)
COUNTERS = ("tests/test_serve_counters.py",)

MUTANTS = [
    Mutant(
        GUARD_FILE,
        "if not (route and route.open and exchange.method == route.method):",
        "if not (route and exchange.method == route.method):",
        GUARD,
    ),
    Mutant(
        GUARD_FILE,
        "if not (route and route.open and exchange.method == route.method):",
        "if not (route and route.open):",
        GUARD,
    ),
    Mutant(GUARD_FILE, "if limit and size > limit:", "if limit and size > 2 * limit:", GUARD),
    Mutant(GUARD_FILE, "if limit and size > limit:", "if limit and size >= limit:", GUARD),
    Mutant(
        GUARD_FILE,
        "if limit and _content_length(headers) > limit:",
        "if limit and _content_length(headers) >= limit:",
        GUARD,
    ),
    Mutant(
        GUARD_FILE,
        '        check(scope["path"], parsed, self.limits, self.own_fields.get(scope["path"], ()))\n',
        "",
        GUARD,
    ),
    Mutant(PROMPTS_FILE, "named = changed.pop(FIELD, None)", "named = None", PROMPTS),
    Mutant(PROMPTS_FILE, "return words + value", "return value", PROMPTS),
    Mutant(PROMPTS_FILE, 'return self.words.get(self.default, "")', 'return ""', PROMPTS),
    Mutant(PROMPTS_FILE, "prompt_for(part, self.words)", "None", PROMPTS),
    Mutant("adaptkit/prompt_names.py", '("document", "passage", "corpus")', '("document",)', PROMPTS),
    Mutant(GUARD_FILE, "[\\w.-]{1,100}", "[\\w.-]{1,1000}", GUARD),
    Mutant(GUARD_FILE, "raise Refused(405, ", "raise Refused(404, ", GUARD),
    Mutant(GUARD_FILE, 'f"{exchange.id}-{uuid.uuid4().hex[:8]}".encode()', "exchange.id.encode()", GUARD),
    Mutant(BODY_FILE, "_at_most(body, field, limits.sequences)", "_at_most(body, field, limits.items)", BODY),
    Mutant(BODY_FILE, "    if value > limit:", "    if value == limit + 1:", BODY),
    Mutant(BODY_FILE, "or len(items) <= limit:", "or len(items) < limit:", BODY),
    Mutant(BODY_FILE, "-LARGEST - 1 <= int(text)", "-LARGEST <= int(text)", BODY),
    Mutant(BODY_FILE, 'if path == "/v1/embeddings" and', 'if path == "/v1/completions" and', BODY),
    Mutant(BODY_FILE, "    if not math.isfinite(value):", "    if math.isnan(value):", BODY),
    Mutant(ROUTES_FILE, 'METRICS: Route("GET"),', 'METRICS: Route("GET", open=True),', ROUTES),
    Mutant(ROUTES_FILE, "_ONE_MODEL.fullmatch(path)", "_ONE_MODEL.match(path)", ROUTES),
    Mutant(
        COUNTERS_FILE,
        "_Bucket(float(self.per_minute), now)",
        "_Bucket(float(self.per_minute - 1), now)",
        COUNTERS,
    ),
    Mutant(COUNTERS_FILE, "* self.per_minute / 60", "* self.per_minute", COUNTERS),
    Mutant(
        COUNTERS_FILE,
        "min(float(self.per_minute), bucket.tokens + refill), now",
        "bucket.tokens + refill, now",
        COUNTERS,
    ),
    Mutant(COUNTERS_FILE, "if bucket.tokens < 1.0:", "if bucket.tokens <= 1.0:", COUNTERS),
    Mutant(KEY_FILE, "os.O_EXCL, 0o600)", "os.O_EXCL, 0o644)", KEYS),
    Mutant(KEY_FILE, "parents=True, exist_ok=True, mode=0o700)", "parents=True, exist_ok=True)", KEYS),
    Mutant(KEY_FILE, "0o022", "0o002", KEYS),
    Mutant(KEY_FILE, "SHORTEST = 16", "SHORTEST = 4", KEYS),
    Mutant(KEY_FILE, "len(key) < SHORTEST", "len(key) <= SHORTEST", KEYS),
    Mutant(KEY_FILE, "matching = name", "return name", KEYS),
    Mutant(KEY_FILE, "hmac.compare_digest(digest, candidate_digest)", "digest == candidate_digest", KEYS),
    Mutant(
        KEY_FILE,
        "if path is None and os.environ.get(KEY_VARIABLE):",
        "if os.environ.get(KEY_VARIABLE):",
        KEYS,
    ),
]
