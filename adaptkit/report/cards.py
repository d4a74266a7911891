"""Let tables fold into cards on a phone: each cell carries its column's heading, which the style sheet shows.

Cells that hold nothing but a dash are marked, and left out of a card.
"""

from __future__ import annotations

import html
import re

_TABLE = re.compile(r"<table\b.*?</table>", re.DOTALL)
_HEAD = re.compile(r"<thead>.*?</thead>", re.DOTALL)
_HEADING = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)
_ROW = re.compile(r"<tr\b[^>]*>.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<t([hd])\b(?=[^>]*>\s*(&ndash;|\u2013)?(\s*</td>)?)")
_TAG = re.compile(r"<[^>]*>")


def label_cells(page: str) -> str:
    """A page whose table cells have `data-label`, the text of their column's heading."""
    return _TABLE.sub(lambda table: _labelled(table.group()), page)


def _labelled(table: str) -> str:
    head = _HEAD.search(table)
    if head is None:
        return table
    headings = [html.unescape(_TAG.sub("", text)).strip() for text in _HEADING.findall(head.group())]
    body = _ROW.sub(lambda row: _row(row.group(), headings), table[head.end() :])
    return table[: head.end()] + body


def _row(row: str, headings: list[str]) -> str:
    left = iter(headings)

    def labelled(cell: re.Match[str]) -> str:
        heading = next(left, "")
        if cell[1] == "h" or not heading:
            return cell.group()
        empty = " data-empty" if cell[2] and cell[3] else ""
        return f'{cell.group()} data-label="{html.escape(heading)}"{empty}'

    return _CELL.sub(labelled, row)
