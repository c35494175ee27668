"""What a compiled program moves, read off its text: collectives by kind, and bytes between chip and memory.

XLA's own `cost_analysis` counts the body of a loop once, however often it runs: a transformer of thirty equal blocks
looks like one of a single block. Here a loop counts as often as its condition says. All bytes are those of one device.

A collective of `g` devices sends, as a ring does, of an operand of `b` bytes

    all-gather (g-1) b     reduce-scatter, all-to-all (g-1)/g b     all-reduce 2 (g-1)/g b     collective-permute b

Memory traffic is the operands and results of every instruction that is not inside a fusion. What only a slice is read
of, or written to, counts as that slice. Arrays in on-chip memory (`S(n)` in their layout) count nothing.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

MARKS = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "opt-barrier", "add-dependency"}
CALLS = {"while", "conditional", "call", "async-start", "async-update", "call-start", "call-update"}
FREE = MARKS | CALLS | {"partition-id", "replica-id", "custom-call"}
"""Instructions that move nothing themselves. Custom calls allocate or mark; what else they do is not told."""

SLICES = {"dynamic-slice": 0, "gather": 0, "slice": 0}
"""Instructions that read of an operand, by its position, no more than they give."""

SIZES = {"pred": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8, "c64": 8, "c128": 16}
SIZES |= dict.fromkeys(("f32", "s32", "u32"), 4) | dict.fromkeys(("s8", "u8"), 1)
SIZES |= dict.fromkeys(("token", "opaque"), 0)

ARRAY = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")
NAME = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    kind: str
    shape: str
    operands: tuple[str, ...]
    rest: str
    """Attributes, such as the devices of a collective; the value of a constant."""
    is_root: bool

    def called(self, attribute: str) -> str | None:
        """The computation that an attribute names."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.rest)
        return None if found is None else found.group(1)


Computation = dict[str, Instruction]


@dataclasses.dataclass
class Traffic:
    """Collectives of one kind: how many run, the bytes of the whole arrays, and those that a device sends."""

    count: int = 0
    bytes: float = 0.0
    sent: float = 0.0


@dataclasses.dataclass(frozen=True)
class Moved:
    """What one run of a program moves on one device."""

    collectives: dict[str, Traffic]
    memory: float

    @property
    def sent(self) -> float:
        """Bytes that a device sends to others."""
        return sum(traffic.sent for traffic in self.collectives.values())


def moved(text: str) -> Moved:
    """Read `compiled.as_text()`. Raises `ValueError` if it has no entry computation."""
    computations, entry = parse(text)
    found = re.search(r"num_partitions=(\d+)", text)
    devices = int(found.group(1)) if found else 1
    collectives: dict[str, Traffic] = collections.defaultdict(Traffic)
    memory = 0.0
    for instruction, computation, times, is_fused in _runs(computations, entry):
        kind = instruction.kind.removesuffix("-start")
        if kind in COLLECTIVES:
            size = sum(_bytes(computation[name].shape) for name in instruction.operands)
            whole, sent = _ring(kind, size, group_size(instruction.rest, devices))
            # The TPU compiler writes a reduce-scatter as a fusion of an all-reduce and the slice of it that is kept.
            if kind == "all-reduce" and is_fused:
                kind, sent = "reduce-scatter", sent / 2
            traffic = collectives[kind]
            traffic.count, traffic.bytes = traffic.count + times, traffic.bytes + times * whole
            traffic.sent += times * sent
        elif not is_fused:
            memory += times * _memory(instruction, computation, computations)
    return Moved(dict(collectives), memory)


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """All computations of a program by name, and the name of the one that is run."""
    computations: dict[str, Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")) and line.rstrip().endswith("{"):
            found = NAME.search(line)
            assert found is not None
            current = computations.setdefault(found.group(1), {})
            entry = found.group(1) if line.startswith("ENTRY") else entry
        elif current is not None and " = " in line:
            instruction = _instruction(line)
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("the text holds no entry computation; give that of a compiled program")
    return computations, entry


def group_size(attributes: str, devices: int) -> int:
    """Devices that take part in one collective, in any of the three ways that XLA writes it."""
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return len(found.group(1).split(","))
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(found.group(1))
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found.group(1)))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", found.group(2)))
    return devices


def _instruction(line: str) -> Instruction:
    left, _, right = line.strip().partition(" = ")
    end = _closing(right, 0) if right.startswith("(") else right.index(" ")
    shape, right = right[:end], right[end:].lstrip()
    opening = right.index("(")
    closing = _closing(right, opening)
    inside = right[opening + 1 : closing - 1]
    kind, name = right[:opening], left.removeprefix("ROOT ").removeprefix("%")
    operands = () if kind == "constant" else tuple(NAME.findall(inside))
    rest = inside if kind in ("constant", "parameter") else right[closing:]
    return Instruction(name, kind, shape, operands, rest, left.startswith("ROOT "))


def _closing(text: str, start: int) -> int:
    """One past the parenthesis that closes the one at `start`."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            return at + 1
    raise ValueError(
        f"a parenthesis is not closed in the line {text[:80]!r}; give the text of a compiled program whole"
    )


def _runs(
    computations: dict[str, Computation], name: str, times: int = 1, is_fused: bool = False
) -> Iterator[tuple[Instruction, Computation, int, bool]]:
    """Every instruction that a computation runs, where it stands, how often, and whether inside a fusion."""
    computation = computations[name]
    for instruction in computation.values():
        yield instruction, computation, times, is_fused
        if instruction.kind == "while":
            body, condition = instruction.called("body"), instruction.called("condition")
            assert body is not None
            assert condition is not None
            yield from _runs(computations, body, times * trips(instruction, computations[condition]), is_fused)
        elif instruction.kind == "fusion":
            called = instruction.called("calls")
            assert called is not None
            yield from _runs(computations, called, times, True)
        elif instruction.kind in ("call", "async-start", "call-start"):
            called = instruction.called("to_apply") or instruction.called("calls")
            if called is not None:
                yield from _runs(computations, called, times, is_fused)
        elif instruction.kind == "conditional":
            for called in NAME.findall(instruction.rest.partition("branch_computations=")[2].partition("}")[0]):
                yield from _runs(computations, called, times, is_fused)


def trips(loop: Instruction, condition: Computation) -> int:
    """How often a loop runs: what the compiler says, or the number that its counter is compared with."""
    if found := re.search(r"known_trip_count\W+n\W+(\d+)", loop.rest):
        return int(found.group(1))
    numbers = [line.rest for line in condition.values() if line.kind == "constant" and line.shape.startswith("s32[]")]
    return max((int(number) for number in numbers if number.isdigit()), default=1)


def _ring(kind: str, size: float, devices: int) -> tuple[float, float]:
    """Bytes of the whole array, and bytes that a device sends."""
    others = devices - 1
    if kind == "all-gather":
        return devices * size, others * size
    if kind == "collective-permute":
        return size, size
    return size, (2 if kind == "all-reduce" else 1) * others / devices * size


def _memory(instruction: Instruction, computation: Computation, computations: dict[str, Computation]) -> float:
    """Bytes that an instruction reads from memory and writes to it."""
    if instruction.kind in FREE or instruction.kind.endswith("-done"):
        return 0.0
    if instruction.kind == "copy-start":
        # Its result names both the copy and what is copied, of which one may be on the chip.
        return _in_memory(instruction.shape)
    shapes = [computation[name].shape for name in instruction.operands if name in computation]
    if instruction.kind == "fusion":
        return _fusion(instruction, shapes, computations)
    if instruction.kind in SLICES:
        return 2 * _in_memory(instruction.shape)
    if instruction.kind == "dynamic-update-slice":
        return 2 * _in_memory(shapes[1])
    return _in_memory(instruction.shape) + sum(map(_in_memory, shapes))


def _fusion(fusion: Instruction, shapes: list[str], computations: dict[str, Computation]) -> float:
    """Operands and results of a fusion; slices where it reads or writes no more of them."""
    body = computations[fusion.called("calls") or ""]
    wholes = {line.name: _in_memory(shapes[int(line.rest)]) for line in body.values() if line.kind == "parameter"}
    read = {name: min(whole, _read(name, body, computations)) for name, whole in wholes.items()}
    written = _in_memory(fusion.shape)
    for name in read:
        using = _users(name, body)
        if using and all(line.kind == "dynamic-update-slice" and position == 0 for line, position in using):
            # Written in place: the rest of the array stays where it is.
            update = sum(_in_memory(body[line.operands[1]].shape) for line, _ in using)
            written -= min(written, sum(_in_memory(line.shape) for line, _ in using)) - update
            read[name] = 0.0
    return written + sum(read.values())


def _read(name: str, body: Computation, computations: dict[str, Computation]) -> float:
    """Bytes that a fused computation, and those fused into it, read of one of its values: infinitely many if it is not
    slices."""
    total, using = 0.0, _users(name, body)
    for line, position in using:
        if line.kind == "fusion":
            inner = computations[line.called("calls") or ""]
            (parameter,) = (its.name for its in inner.values() if its.kind == "parameter" and int(its.rest) == position)
            total += _read(parameter, inner, computations)
        else:
            total += _in_memory(line.shape) if SLICES.get(line.kind) == position else math.inf
    return total if using else math.inf


def _users(name: str, body: Computation) -> list[tuple[Instruction, int]]:
    """Where a value is an operand, as itself or through bitcasts, and its position there."""
    return [
        (line, position)
        for line in body.values()
        if line.kind != "bitcast"
        for position, operand in enumerate(line.operands)
        if _source(operand, body) == name
    ]


def _source(name: str, body: Computation) -> str:
    """What a chain of bitcasts begins with."""
    while name in body and body[name].kind == "bitcast":
        name = body[name].operands[0]
    return name


def _in_memory(shape: str) -> float:
    """Bytes of the arrays of a shape, but for those that lie on the chip itself."""
    return _bytes(ARRAY.sub(lambda found: "" if "S(" in (found.group(3) or "") else found.group(0), shape))


def _bytes(shape: str) -> float:
    """Of the arrays of a shape."""
    total = 0.0
    for kind, sizes, _ in ARRAY.findall(shape):
        width = SIZES.get(kind, 1 if kind.startswith(("f8", "s4", "u4")) else 4)
        total += width * math.prod(int(size) for size in sizes.split(",") if size)
    return total
