"""The loop that fills a file with rows: each made once, whole in the file before the next is begun."""

import json

import pytest

from experiments.parts.filling import Wanted, fill
from experiments.parts.rows import append_row, read_rows


def _of(number: int, made: list[int], picture=None) -> Wanted:
    """A row that notes when it is made, and writes its picture."""

    def make() -> dict:
        made.append(number)
        if picture is not None:
            picture.write_text("pixels")
        return {"values": {"square": {"value": float(number**2), "standard_error": None}}}

    return Wanted(f"number {number}", {"number": number, "pair": (1, 2)}, make, picture)


def test_rows_are_made_once_and_come_in_the_order_asked_for(tmp_path):
    file, made = tmp_path / "rows.jsonl", []
    first = fill(file, [_of(number, made) for number in (1, 2)])
    again = fill(file, [_of(number, made) for number in (3, 2, 1)])
    assert made == [1, 2, 3], "what the file holds is not made again, what it lacks is"
    assert [row["values"]["square"]["value"] for row in again] == [9, 4, 1]
    assert again[1:] == first[::-1], "a row that was made is the row that is read"
    assert {"seconds", "commit", "device"} <= first[0].keys()
    assert len(file.read_text().splitlines()) == 3


def test_a_row_that_was_left_half_written_or_lost_its_picture_is_made_again(tmp_path):
    file, made = tmp_path / "rows.jsonl", []
    fill(file, [_of(1, made, tmp_path / "1.png")])
    half = json.dumps({"number": 2, "pair": [1, 2]})[:-3]
    file.write_text(file.read_text() + half)
    fill(file, [_of(number, made, tmp_path / f"{number}.png") for number in (1, 2)])
    assert made == [1, 2]
    assert [row["number"] for row in read_rows(file)] == [1, 2], "the new row has a line of its own"
    (tmp_path / "1.png").unlink()
    (row, _) = fill(file, [_of(number, made, tmp_path / f"{number}.png") for number in (1, 2)])
    assert made == [1, 2, 1]
    assert row["number"] == 1


def test_a_row_is_in_the_file_before_the_next_is_begun_and_never_without_all_its_values(tmp_path):
    file, made = tmp_path / "rows.jsonl", []

    def make() -> dict:
        raise KeyboardInterrupt

    killed = Wanted("killed", {"number": 5}, make)
    nan = Wanted("nan", {"number": 6}, lambda: {"values": {"square": {"value": float("nan"), "standard_error": None}}})
    with pytest.raises(KeyboardInterrupt):
        fill(file, [_of(1, made), killed])
    with pytest.raises(ValueError, match="JSON compliant"):
        fill(file, [_of(1, made), nan])
    assert made == [1]
    assert [json.loads(line)["number"] for line in file.read_text().splitlines()] == [1]


def test_values_alone_of_former_rows_are_estimates_whose_error_is_not_known(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"plan": "a", "values": {"near": 3.5, "far": {"value": 2.0, "standard_error": 0.5}}}\n')
    (row,) = read_rows(file)
    assert row["values"] == {
        "near": {"value": 3.5, "standard_error": None},
        "far": {"value": 2.0, "standard_error": 0.5},
    }


def test_a_config_is_written_once_and_every_row_is_read_with_it(tmp_path):
    """Also when two processes write out the same one, as neither knows of the other's row yet."""
    file, made = tmp_path / "rows.jsonl", []

    def of(seed: int, number: int) -> Wanted:
        one = _of(number, made)
        return Wanted(one.line, {"experiment": {"training": {"seed": seed}}} | one.settings, one.make)

    wanted = [of(seed, number) for seed in (0, 1) for number in (1, 2, 3)]
    first = fill(file, wanted)
    written = [json.loads(line)["experiment"] for line in file.read_text().splitlines()]
    assert [isinstance(config, dict) for config in written] == [True, False, False] * 2
    assert [row["experiment"]["training"]["seed"] for row in read_rows(file)] == [0, 0, 0, 1, 1, 1]
    assert fill(file, wanted) == first, "a row is known by its config, wherever that is written"
    assert len(made) == 6

    beside = tmp_path / "beside.jsonl"
    append_row(beside, first[0])
    both = beside.read_text() + file.read_text()
    file.write_text(both)
    rows = read_rows(file)
    assert rows == [first[0], *first]
    rows[1]["experiment"]["training"]["seed"] = 5
    assert rows[2] == first[1], "each row has a config of its own"
    file.write_text("".join(both.splitlines(keepends=True)[2:4]))
    with pytest.raises(ValueError, match="no row of the file has written out"):
        read_rows(file)
