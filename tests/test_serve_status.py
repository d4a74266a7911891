"""Progress of a server: one JSON object per event where nobody looks, a live line on a terminal."""

from __future__ import annotations

import json
import sys

import pytest

from adaptkit.serve.status import StatusLine


def test_elsewhere_than_on_a_terminal_each_event_is_one_json_object(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = StatusLine()
    status.phase("m", "loading")
    status.note("m", "ready after 3.0 s")
    status.quiet()
    captured = capsys.readouterr()
    phase, note = map(json.loads, captured.err.splitlines())
    assert captured.out == "" and phase.pop("seconds") >= 0 and note.pop("seconds") >= 0
    assert phase == {"event": "phase", "model": "m", "phase": "loading"}
    assert note == {"event": "note", "model": "m", "text": "ready after 3.0 s"}


def test_on_a_terminal_a_note_takes_the_live_line_away_and_stays(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status = StatusLine()
    status.phase("m", "loading")
    assert status._live is not None
    status.note("m", "[not markup] ready")
    assert status._live is None and "m: [not markup] ready" in capsys.readouterr().err
