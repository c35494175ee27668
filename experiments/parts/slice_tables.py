"""Rows of programs compiled for a slice, as tables: what fits, what is moved, and the least time of a step."""

from experiments.parts.chips import GIB, Roofline, chip, roofline
from experiments.parts.tables import Finding, finding_markdown

RUN_STEPS = 1_000_000
"""Of the paper's training."""

PAPER_HOURS = 5 + 40 / 60
"""That the paper took for them on a v6e:8x8."""


def roofline_of(row: dict) -> Roofline:
    """The least time of one run of a program that fits."""
    return roofline(chip(row["topology"]), row["program_flops"], row["memory_traffic"], row["sent"])


def share_of_peak(row: dict) -> float:
    """Of the chip's FLOP/s, at the roofline: FLOPs of the network, not those that are spent to save memory."""
    return row["network_flops"] / roofline_of(row).seconds / chip(row["topology"]).flops


def hours(row: dict) -> float:
    """Of a million train steps at the roofline."""
    return roofline_of(row).seconds * RUN_STEPS / 3600


def one_line(row: dict) -> str:
    """A row in words."""
    what = f"{row['program']} of {row['preset']}, batch {row['batch_size']}, {row['topology']}, fsdp {row['fsdp']}"
    if not row["fits"]:
        return f"{what}: does not fit, needs {row['peak_bytes'] / GIB:.1f} GiB a chip"
    least = roofline_of(row)
    return (
        f"{what}: {row['peak_bytes'] / GIB:.2f} GiB a chip, {row['program_flops'] / 1e12:.2f} TFLOP, "
        f"{row['memory_traffic'] / 1e9:.1f} GB of memory traffic, {row['sent'] / 1e9:.2f} GB sent; at least "
        f"{1e3 * least.seconds:.1f} ms ({least.bound}), compiled in {row['compiling_seconds']:.0f} processor seconds"
    )


def markdown(rows: list[dict]) -> str:
    """Three tables: memory and work, collectives, and the roofline."""
    fitting = [row for row in rows if row["fits"]]
    findings = (
        Finding("What a chip needs", MEMORY_HEAD, [_memory(row) for row in rows], MEMORY_NOTE),
        Finding("What chips send each other", SENT_HEAD, [line for row in fitting for line in _sent(row)], SENT_NOTE),
        Finding("The least time", TIME_HEAD, [_time(row) for row in fitting], TIME_NOTE),
    )
    return "\n\n".join(map(finding_markdown, findings)) + "\n"


NAMES_HEAD = ("program", "preset", "slice", "data x fsdp", "batch", "parts", "type")

MEMORY_HEAD = (
    *NAMES_HEAD,
    "peak, GiB",
    "of them weights, average, moments and batch",
    "network, TFLOP",
    "program, TFLOP",
    "by XLA, TFLOP",
    "memory traffic, GB",
)

MEMORY_NOTE = (
    "Of one chip and one run of the program (a train step, or all 250 steps of sampling with guidance). FLOPs of the "
    "network are three forward passes (of sampling: two a step), those of the program are counted from its shapes, "
    "with what it recomputes; XLA counts the body of a loop once."
)

SENT_HEAD = (*NAMES_HEAD, "kind", "count", "whole arrays, GB", "sent by a chip, GB")
SENT_NOTE = "Loops count as often as they run."

TIME_HEAD = (
    *NAMES_HEAD,
    "FLOP a byte",
    "computing, ms",
    "memory, ms",
    "sending, ms",
    "at least, ms",
    "if nothing overlaps, ms",
    "share of peak",
    "1M steps, h",
)

TIME_NOTE = (
    "A roofline from published figures of the chip (`experiments/parts/chips.py`): no program is faster. Nothing was "
    f"run. The paper took {PAPER_HOURS:.2f} h for a million steps of its 60M network on a v6e:8x8."
)


def _names(row: dict) -> tuple[str, ...]:
    return (
        row["program"],
        row["preset"],
        row["topology"],
        f"{row['chips'] // row['fsdp']} x {row['fsdp']}",
        str(row["batch_size"]),
        str(row["accumulation"]) if row["program"] == "train" else "-",
        row["compute_dtype"],
    )


def _memory(row: dict) -> tuple[str, ...]:
    flops = tuple(f"{row[name] / 1e12:.3g}" for name in ("network_flops", "program_flops"))
    if not row["fits"]:
        return (*_names(row), f"{row['peak_bytes'] / GIB:.1f}: does not fit", "-", *flops, "-", "-")
    bytes_ = tuple(f"{row[name] / GIB:.2f}" for name in ("peak_bytes", "argument_bytes"))
    return (*_names(row), *bytes_, *flops, f"{row['xla_flops'] / 1e12:.3g}", f"{row['memory_traffic'] / 1e9:.3g}")


def _sent(row: dict) -> list[tuple[str, ...]]:
    return [
        (*_names(row), kind, str(its["count"]), f"{its['bytes'] / 1e9:.3g}", f"{its['sent'] / 1e9:.3g}")
        for kind, its in sorted(row["collectives"].items())
    ]


def _time(row: dict) -> tuple[str, ...]:
    least = roofline_of(row)
    parts = (least.computing, least.memory, least.sending, least.seconds, least.apart)
    return (
        *_names(row),
        f"{row['program_flops'] / row['memory_traffic']:.0f}",
        *(f"{1e3 * seconds:.3g}" for seconds in parts),
        f"{share_of_peak(row):.0%}",
        f"{hours(row):.1f}" if row["program"] == "train" else "-",
    )
