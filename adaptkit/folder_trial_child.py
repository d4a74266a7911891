"""Render a chat template, or encode texts by a tokenizer, within limits; run as a script by `folder_trial`.

    python -I folder_trial_child.py template < text-as-json       # prints null, or what is wrong

Imports nothing of adaptkit. A trial that meets a limit ends the process; the parent says which.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

CPU_S = {"template": 2, "tokenizer": 8}
MEMORY_MIB = {"template": 512, "tokenizer": 4096}
MAX_RENDERED_CHARS = 1_000_000
MAX_TOKENS_PER_CHAR = 16
TRIED_CHARS = 20_000
MAX_ENCODING_S = 4.0
"""For a text of TRIED_CHARS; sound tokenizers take some milliseconds."""


def template_problem(template: str) -> str | None:
    """Render conversations of several lengths and forms; a template may refuse them, but must end."""
    environment = _environment()
    try:
        compiled = environment.from_string(template)
    except MemoryError:
        raise
    except Exception:  # no template: it is named where it is used
        return None
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    more = {"tools": [{"type": "function", "function": function}], "documents": [{"title": "t", "text": "x"}]}
    given = {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
    for messages in _conversations():
        for extra in ({}, more):
            num_chars = 0
            try:
                for piece in compiled.generate(messages=messages, **given, **extra):
                    num_chars += len(piece)
                    if num_chars > MAX_RENDERED_CHARS:
                        return f"writes more than {MAX_RENDERED_CHARS:,} characters for a short conversation"
            except MemoryError:
                raise
            except Exception:  # many refuse a conversation that is not in their order
                continue
    return None


def _conversations() -> list[list[dict[str, Any]]]:
    turns = [{"role": role, "content": "A question, an answer."} for role in ("user", "assistant") * 20]
    system = [{"role": "system", "content": "Be brief."}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "A question."}]}]
    return [turns[:1], turns[:2], system + turns[:3], turns, system + turns[:39], parts, []]


def _environment() -> Any:
    """The environment that transformers renders chat templates in."""
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tag that marks what the assistant writes."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def refuse(message: str) -> None:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: time.strftime(form)
    return environment


def tokenizer_problem(file: str) -> str | None:
    """Encode texts of every letter kind without blanks, and prose."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(file)
    except Exception:  # no tokenizer: it is named where it is loaded
        return None
    for text in _texts():
        start = time.process_time()
        try:
            encoded = tokenizer.encode(text)
        except Exception as error:
            return f"cannot encode a plain text: {str(error)[:200]}"
        seconds = time.process_time() - start
        if len(encoded.ids) > MAX_TOKENS_PER_CHAR * len(text) + 1024:
            return f"makes {len(encoded.ids):,} tokens of {len(text):,} characters"
        if seconds > MAX_ENCODING_S:
            return f"takes {seconds:.0f} s for {len(text):,} characters"
    return None


def _texts() -> list[str]:
    prose = "It's 12 o'clock, and 3.5 of them (a, b) wait!\n\n"
    short = ["", "a", prose, *(letter * 64 + "!" for letter in "aA0 x._\n")]
    runs = [letter * TRIED_CHARS for letter in ("a", "A", "0", " ", "\n", "!", "_", "\u00e9", "\u4e2d")]
    mixed = [
        (part * TRIED_CHARS)[:TRIED_CHARS] + end
        for part in ("ab", "a1", "aA", "a ", " \n", "'s")
        for end in "!\n"
    ]
    return [*short, (prose * TRIED_CHARS)[:TRIED_CHARS], *runs, *mixed]


def main() -> None:
    kind = sys.argv[1]
    memory = MEMORY_MIB[kind] * 2**20
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S[kind], CPU_S[kind]))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    subject = json.loads(sys.stdin.read())
    problem = template_problem(subject) if kind == "template" else tokenizer_problem(subject)
    print(json.dumps(problem))


if __name__ == "__main__":
    main()
