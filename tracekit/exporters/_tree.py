"""A trace as text: one line a span, indented below its parent, with when and how long it ran."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tracekit.exporters._forest import build_forests
from tracekit.exporters._summary import failure, summary
from tracekit.exporters._terminal import Style, Terminal, clip, columns, printable
from tracekit.interfaces import ReadableSpan
from tracekit.trace import Node, Trace, covered, format_duration

__all__ = ["render_tree"]

MIN_REPEATS = 4
"""So many equal siblings become one line."""

_SERVICE_COLORS = ("cyan", "magenta", "green", "blue", "bright_magenta", "bright_green")
_TIME_WIDTH = 8


@dataclass(frozen=True)
class _Signs:
    tee: str
    corner: str
    pipe: str
    blank: str
    deep: str
    into: str
    times: str
    cross: str
    ellipsis: str
    dot: str
    flag: str
    edges: tuple[str, str]
    busy: str
    waiting: str
    micro: str


_UNICODE = _Signs(
    tee="├─ ",
    corner="└─ ",
    pipe="│  ",
    blank="   ",
    deep="┆",
    into=" ▸ ",
    times="\N{MULTIPLICATION SIGN}",
    cross="✗",
    ellipsis="…",
    dot=" · ",
    flag="⚑",
    edges=("▕", "▏"),
    busy="█",
    waiting="░",
    micro="µ",
)
_ASCII = _Signs(
    tee="|- ",
    corner="`- ",
    pipe="|  ",
    blank="   ",
    deep=":",
    into=" > ",
    times="x",
    cross="!",
    ellipsis="...",
    dot=", ",
    flag="#",
    edges=("[", "]"),
    busy="#",
    waiting="-",
    micro="u",
)


def render_tree(
    spans: Iterable[ReadableSpan],
    *,
    terminal: Terminal | None = None,
    color: bool | None = None,
    width: int | None = None,
    unicode: bool | None = None,
    service_name: str | None = None,
    collapse: bool = True,
    max_lines: int | None = None,
    marks: Mapping[int, str] | None = None,
) -> str:
    """Return spans as trees, each trace with a line about the whole in front.

    A bar shows when a span ran within its trace: solid where it worked itself, shaded where one
    of its children ran. Equal siblings (four or more) are one line, with their number and sum.

    Args:
        terminal: Where the text is going; ``color``, ``width`` and ``unicode`` win over it.
        service_name: Shown instead of the resource's.
        collapse: False writes every span on a line of its own.
        max_lines: So many spans of a trace are shown, and the rest is counted.
        marks: What to write behind a flag beside spans, by span id.

    Returns:
        Lines that end with a newline, or nothing for no spans.

    Raises:
        Nothing. What cannot be read of a span is left out; text is made safe for a terminal.
    Cost: n log n, without recursion: deep and wide traces alike.
    """
    place = terminal or Terminal()
    page = _Page(
        style=Style(place.color if color is None else color),
        width=place.width if width is None else width,
        signs=_UNICODE if (place.unicode if unicode is None else unicode) else _ASCII,
        repeats=MIN_REPEATS if collapse else None,
        max_lines=max_lines,
        marks=marks or {},
    )
    traces = [_Trace(forest, page) for forest in build_forests(spans, service_name)]
    return "\n".join("".join(f"{line}\n" for line in trace.lines()) for trace in traces)


@dataclass(frozen=True)
class _Page:
    style: Style
    width: int
    signs: _Signs
    repeats: int | None
    max_lines: int | None
    marks: Mapping[int, str]

    @property
    def bar_width(self) -> int:
        if self.width < 60:
            return 0
        return min(max(self.width // 5, 12), 32)

    @property
    def label_width(self) -> int:
        bar = self.bar_width + 4 if self.bar_width else 0
        return max(12, self.width - bar - 2 * (_TIME_WIDTH + 1))


@dataclass(frozen=True)
class _Row:
    """A line to be: a span, or several equal ones, and the tree drawn in front of it."""

    nodes: Sequence[Node]
    prefix: str
    below: str
    service_above: str
    depth: int


class _Trace:
    """One trace being written."""

    def __init__(self, forest: Trace, page: _Page) -> None:
        self.forest, self.page, self.signs, self.style = forest, page, page.signs, page.style
        services = dict.fromkeys(node.service for node in forest.nodes if node.service)
        self.colors = {
            name: _SERVICE_COLORS[index % len(_SERVICE_COLORS)]
            for index, name in enumerate(services)
        }
        self.slowest = max(forest.nodes, key=lambda node: node.self_ns)
        self.shapes = _shapes(forest.roots) if page.repeats else {}

    def lines(self) -> Iterator[str]:
        yield self._title()
        yield self._headings()
        shown = 0
        for number, row in enumerate(self._rows()):
            if self.page.max_lines is not None and number >= self.page.max_lines:
                left = len(self.forest.nodes) - shown
                yield self.style.paint("dim", f"{self.signs.ellipsis} {left:,} more spans")
                break
            shown += sum(node.span is not None for node in row.nodes)
            yield self._line(row)
            if row.nodes[0].is_error:
                yield self._failure_line(row)
        if conclusion := self._conclusion():
            yield conclusion

    def _title(self) -> str:
        nodes = self.forest.nodes
        errors = sum(node.count for node in nodes if node.is_error)
        number = sum(node.count for node in nodes)
        facts = [
            self._time(self.forest.end - self.forest.start),
            _counted(len(nodes), "span"),
            f"{number:,} before compression" if number > len(nodes) else "",
            _counted(len(self.colors), "service") if self.colors else "",
            _counted(errors, "error") if errors else "",
        ]
        told = self.signs.dot.join(fact for fact in facts if fact)
        title = f"trace {self.forest.trace_id:032x}"
        gap = "  " if len(title) + 2 + len(told) <= self.page.width else "\n"
        if errors:
            told = told.removesuffix(facts[-1]) + self.style.paint("bold_red", facts[-1])
        return f"{self.style.paint('bold', title)}{gap}{told}"

    def _headings(self) -> str:
        label = " " * self.page.label_width
        times = f" {'total':>{_TIME_WIDTH}} {'self':>{_TIME_WIDTH}}"
        return self.style.paint("dim", f"{label}{times}")

    def _conclusion(self) -> str:
        """Name the span with the most time of its own, when that is a good part of the whole."""
        total = self.forest.end - self.forest.start
        node = self.slowest
        if len(self.forest.nodes) < 3 or not total or node.self_ns * 4 < total:
            return ""
        own = f"{self._time(node.self_ns)} ({min(100, round(100 * node.self_ns / total))} %)"
        facts = summary(node.name, node.attributes)
        name = f"{node.name}  {facts}" if facts else node.name
        where = f"{node.service}{self.signs.into}{name}" if node.service else name
        lead = "most time in "
        room = self.page.width - len(lead) - len(own) - 2
        where = clip(printable(where), room, self.signs.ellipsis)
        return f"{self.style.paint('dim', lead)}{where}  {self.style.paint('bold_yellow', own)}"

    # --- which lines there are

    def _rows(self) -> Iterator[_Row]:
        """Walk the tree from top to bottom; a stack, for traces are deeper than Python's."""
        pending = [
            _Row(group, "", "", "", 0) for group in reversed(self._groups(self.forest.roots))
        ]
        while pending:
            row = pending.pop()
            yield row
            children = [child for node in row.nodes for child in node.children]
            if len(row.nodes) > 1:
                children.sort(key=lambda child: child.start)
            groups = self._groups(children)
            last = len(groups) - 1
            pending += [
                self._row_below(row, groups[index], is_last=index == last)
                for index in range(last, -1, -1)
            ]

    def _row_below(self, row: _Row, nodes: Sequence[Node], *, is_last: bool) -> _Row:
        signs, depth = self.signs, row.depth + 1
        service = row.nodes[0].service or row.service_above
        if len(row.below) * 2 > self.page.label_width:
            # No room to indent further: the depth is said as a number.
            return _Row(nodes, f"{row.below}{signs.deep}{depth} ", row.below, service, depth)
        prefix = row.below + (signs.corner if is_last else signs.tee)
        below = row.below + (signs.blank if is_last else signs.pipe)
        return _Row(nodes, prefix, below, service, depth)

    def _groups(self, nodes: Sequence[Node]) -> list[Sequence[Node]]:
        """Put equal siblings together, at the place of the first, when there are enough of them."""
        if not self.page.repeats or len(nodes) < self.page.repeats:
            return [[node] for node in nodes]
        alike: dict[int, list[Node]] = {}
        for node in nodes:
            alike.setdefault(self.shapes[node], []).append(node)
        groups: list[Sequence[Node]] = []
        for node in nodes:
            same = alike[self.shapes[node]]
            if len(same) < self.page.repeats:
                groups.append([node])
            elif same[0] is node:
                groups.append(same)
        return groups

    # --- how a line looks

    def _line(self, row: _Row) -> str:
        label = self._label(row)
        times = f" {self._total(row)} {self._self_time(row)}"
        bar = self._bar(row.nodes)
        return f"{label}{times}{bar}".rstrip() if not self.style.color else f"{label}{times}{bar}"

    def _label(self, row: _Row) -> str:
        """Return the tree, service, name and key facts, clipped and filled to their column."""
        node, room = row.nodes[0], self.page.label_width
        pieces = [("dim", row.prefix)]
        if (number := sum(item.count for item in row.nodes)) > 1:
            pieces.append(("bold", f"{number:,}{self.signs.times} "))
        if node.service and node.service != row.service_above:
            pieces.append((self.colors[node.service], printable(node.service)))
            pieces.append(("dim", self.signs.into))
        name_color = "bold_red" if node.is_error else "dim" if node.span is None else ""
        pieces.append((name_color, printable(node.name)))
        if not node.is_ended:
            pieces.append(("yellow", "  unfinished"))
        pieces += [("yellow", f"  {self.signs.flag}{mark}") for mark in self._marks(row)]
        if facts := self._facts(row):
            pieces.append(("dim", f"  {facts}"))
        return self._fit(pieces, room)

    def _marks(self, row: _Row) -> list[str]:
        marks = self.page.marks
        found = (marks[node.span_id] for node in row.nodes if node.span_id in marks)
        return list(dict.fromkeys(found))

    def _fit(self, pieces: Sequence[tuple[str, str]], room: int) -> str:
        painted = []
        for color, content in pieces:
            shown = clip(content, room, self.signs.ellipsis)
            room -= columns(shown)
            painted.append(self.style.paint(color, shown) if color else shown)
            if room <= 0:
                break
        return "".join(painted) + " " * max(0, room)

    def _facts(self, row: _Row) -> str:
        node = row.nodes[0]
        facts = []
        if (number := sum(item.count for item in row.nodes)) > 1:
            longest = max(item.max_ns for item in row.nodes)
            mean = sum(item.total_ns for item in row.nodes) // number
            facts.append(f"mean {self._time(mean)}, max {self._time(longest)}")
        if len(row.nodes) == 1:
            facts += [node.note, summary(node.name, node.attributes)]
        return printable("  ".join(fact for fact in facts if fact))

    def _total(self, row: _Row) -> str:
        if row.nodes[0].span is None:
            return " " * _TIME_WIDTH
        total = self._time(sum(node.total_ns for node in row.nodes))
        return f"{total:>{_TIME_WIDTH}}"

    def _self_time(self, row: _Row) -> str:
        """Return the time that no child covers; a leaf's is all of it, and is not said twice."""
        node = row.nodes[0]
        if node.span is None or not (node.children or node is self.slowest):
            return " " * _TIME_WIDTH
        own = f"{self._time(sum(item.self_ns for item in row.nodes)):>{_TIME_WIDTH}}"
        return self.style.paint("bold_yellow" if self.slowest in row.nodes else "dim", own)

    def _failure_line(self, row: _Row) -> str:
        node = row.nodes[0]
        lead = row.below + (self.signs.pipe if node.children else self.signs.blank)
        what = " ".join(failure(node.span, node.description).split())
        room = self.page.width - len(lead)
        what = clip(printable(f"{self.signs.cross} {what}"), room, self.signs.ellipsis)
        return f"{self.style.paint('dim', lead)}{self.style.paint('red', what)}"

    def _bar(self, nodes: Sequence[Node]) -> str:
        width, (left, right) = self.page.bar_width, self.signs.edges
        if not width:
            return ""
        cells = [" "] * width
        for node in nodes:
            first, stop = self._cells(node.start, node.end)
            cells[first:stop] = self.signs.busy * (stop - first)
        if len(nodes) == 1:
            node = nodes[0]
            inside = [(child.start, child.end) for child in node.children]
            for start, end in covered(inside, node.start, node.end):
                first, stop = self._cells(start, end)
                cells[first:stop] = self.signs.waiting * (stop - first)
        color = "red" if nodes[0].is_error else self.colors.get(nodes[0].service, "dim")
        return f"  {left}{self.style.paint(color, ''.join(cells))}{right}"

    def _cells(self, start: int, end: int) -> tuple[int, int]:
        """Return the cells of a bar in which the time between is, at least one."""
        width, total = self.page.bar_width, max(1, self.forest.end - self.forest.start)
        first = min(width - 1, (start - self.forest.start) * width // total)
        stop = -((self.forest.start - end) * width // total)
        return first, min(width, max(first + 1, stop))

    def _time(self, duration_ns: int) -> str:
        return format_duration(duration_ns, self.signs.micro)


def _shapes(roots: Sequence[Node]) -> dict[Node, int]:
    """Give equal numbers to spans that look the same all the way down, whatever their times."""
    order: list[Node] = []
    pending = list(roots)
    while pending:
        node = pending.pop()
        order.append(node)
        pending += node.children
    shapes: dict[Node, int] = {}
    numbers: dict[object, int] = {}
    for node in reversed(order):
        below = frozenset(shapes[child] for child in node.children)
        failed = node.is_error and failure(node.span, node.description).partition(":")[0]
        look = (node.name, node.service, failed, node.is_ended, below)
        shapes[node] = numbers.setdefault(look, len(numbers))
    return shapes


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
