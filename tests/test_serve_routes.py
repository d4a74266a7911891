"""The table of routes is an allow-list: what is in it, and that nothing near it is."""

from __future__ import annotations

import pytest

from adaptkit.serve.gateway.routes import ROUTES, find_route, routes_of_kind

READ = {"/health", "/metrics", "/version", "/v1/models"}
ASKED = {
    "/v1/chat/completions": {"generate"},
    "/v1/completions": {"generate"},
    "/v1/embeddings": {"embed"},
    "/classify": {"classify"},
    "/pooling": {"embed", "classify", "tag", "rerank"},
    "/score": {"embed", "rerank"},
    "/v1/score": {"embed", "rerank"},
    "/rerank": {"embed", "rerank"},
    "/v1/rerank": {"embed", "rerank"},
    "/v2/rerank": {"embed", "rerank"},
    "/tokenize": {"generate", "embed", "classify", "tag", "rerank"},
    "/detokenize": {"generate", "embed", "classify", "tag", "rerank"},
}
OURS = {"/v1/search"}


def test_the_table_is_the_whole_surface() -> None:
    assert ROUTES.keys() == READ | ASKED.keys() | OURS
    assert {path for path, route in ROUTES.items() if route.method == "GET"} == READ
    posts = {path: set(route.kinds) for path, route in ROUTES.items() if route.method == "POST"}
    assert posts == ASKED | dict.fromkeys(OURS, set())
    assert [path for path, route in ROUTES.items() if route.open] == ["/health"]


@pytest.mark.parametrize("path", sorted({*READ, *ASKED, *OURS}))
def test_a_path_of_the_table_is_found_as_it_is_spelt(path: str) -> None:
    assert find_route(path) == path
    for near in (path + "/", "/" + path, path.upper(), path + "?", path + "%00", path[1:], path + "x"):
        assert find_route(near) is None, near


def test_one_model_by_its_name_is_the_route_of_all_models() -> None:
    for name in ("a", "a.b-c@1", "x" * 200, "0+1_2"):
        assert find_route(f"/v1/models/{name}") == "/v1/models"
    for name in ("", "x" * 201, "..", ".a", "a/b", "a%2fb", "a b", "\u0130", "a\n"):
        assert find_route(f"/v1/models/{name}") is None, name


def test_each_kind_is_told_its_own_paths() -> None:
    for kind in ("generate", "embed", "classify", "tag", "rerank"):
        assert routes_of_kind(kind) == [path for path in ROUTES if kind in ASKED.get(path, ())]
