import numpy as np
import pandas as pd
import pytest
from refusals import refused

from jaxalign import board
from jaxalign.reporting.pages import board as page_lib
from jaxalign.results import board_rows

FOLDS = "0123456789abcdef"


def row(model="gpt2", **changes):
    given = dict.fromkeys(board_rows.COLUMNS, "")
    given |= {"dataset": "pereira2018", "protocol": "jaxalign", "folds_hash": FOLDS}
    given |= {"model": model, "submitted_by": "Ada", "jaxalign": "0.1.0", "num_nan": "0"}
    given |= {"raw": ".3", "raw_low": ".2", "raw_high": ".4", "ceiling": ".2", "score": ".3"}
    return given | {name: str(value) for name, value in changes.items()}


@pytest.fixture
def sent(tmp_path):
    def write(*rows, name="ada.csv"):
        path = tmp_path / name
        pd.DataFrame(rows).to_csv(path, index=False)
        return path

    return write


def test_what_was_sent_is_sorted_among_what_is_comparable(sent, tmp_path):
    sent(row(raw=".2", raw_low="", raw_high=""), row("llama"), row("opt", raw="", raw_low=""))
    other = row("llama", submitted_by="Bob", raw=".25", raw_low=".1", raw_high=".3")
    sent(other, row(folds_hash="f" * 16, submitted_by="Bob"), name="bob.csv")
    table = board_rows.find([str(tmp_path)], "")
    assert table.model.tolist() == ["llama", "llama", "gpt2", "opt", "gpt2"]
    assert table.submitted_by.tolist() == ["Ada", "Bob", "Ada", "Ada", "Bob"]
    assert table.raw[:3].tolist() == [0.3, 0.25, 0.2] and np.isnan(table.raw[3])


def test_the_page_shows_raw_scores_beside_ceilings_and_clips_nothing(sent, tmp_path):
    path = sent(
        row(),
        row("opt", raw="-.1", raw_low="-.2", raw_high=""),
        row("llama", folds_hash="f" * 16),
        row("oasm", control_of="gpt2", ceiling=""),
    )
    page = page_lib.page(board_rows.find([str(path)], ""))
    [section] = page.sections
    assert section.title == "pereira2018, protocol jaxalign"
    assert "not comparable" in section.text[0] and len(section.tables) == len(section.charts) == 2
    shown = section.tables[0][1].set_index("model")
    assert shown.of_ceiling["gpt2"] == pytest.approx(1.5)
    assert shown.of_ceiling["opt"] == pytest.approx(-0.5) and np.isnan(shown.of_ceiling["oasm"])
    drawn = {x["label"]: x for x in section.charts[0].rows}
    assert drawn["oasm (control of gpt2)"]["ceiling"] is None
    assert drawn["opt"]["raw"] == -0.1 and drawn["opt"]["ci_high"] is None
    assert page.lead.startswith("3 scores of 3 models and 1 of controls, in 2 groups")


def test_a_board_is_the_same_bytes_and_can_be_read_again(sent, tmp_path, capsys):
    path = sent(row(), row("llama", raw=1 / 3, raw_high=".4"))
    for name in ("one", "two"):
        board.main([str(path), f"--out={tmp_path / name}"])
    assert "board" in capsys.readouterr().out
    for name in ("board.csv", "index.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    again = board_rows.read(tmp_path / "one/board.csv")
    assert again.raw.tolist() == [1 / 3, 0.3]
    board.main([str(path), "--check", f"--out={tmp_path / 'three'}"])
    assert "2 rows are as they must be" in capsys.readouterr().out
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [row(raw="much")],
            "raw must hold numbers, or nothing where undefined, got 'much'",
        ),
        ([row(), row("opt", ceiling="inf")], "where undefined, got 'inf' in row 2"),
        ([row(raw_low=".35")], "row 1: raw_low must not be above raw, got 0.35 and 0.3"),
        ([row(model=" ")], "row 1: model must not be empty"),
        ([row(folds_hash="mine")], "folds_hash must be the hash of folds that a run writes"),
        ([row(raw="", raw_low=".5")], "row 1: raw_low must not be above raw_high, got 0.5 and 0.4"),
        ([row(ceiling_high=".1")], "row 1: ceiling must not be above ceiling_high"),
        ([row(num_nan="")], "num_nan must count scores"),
        ([row(), row()], "gpt2 on pereira2018 under jaxalign by Ada must come once"),
        ([row() | {"rank": "1"}], "must not have column 'rank'"),
        ([{"model": "gpt2"}], "lacks column 'dataset'"),
    ],
)
def test_each_fault_is_named_in_one_line(sent, rows, said):
    with refused(said):
        board_rows.read(sent(*rows))


def test_a_file_without_rows_is_refused(tmp_path):
    path = tmp_path / "empty.csv"
    path.write_text(",".join(board_rows.COLUMNS) + "\n")
    with refused("must hold at least one row"):
        board_rows.read(path)


def test_places_that_hold_nothing_are_refused(sent, tmp_path):
    with refused("must be the work directory of a run, a CSV file or a folder of such files"):
        board_rows.find([str(tmp_path / "absent")], "")
    with refused("--by must say in whose name --submit writes rows"):
        board.main([str(sent(row())), f"--submit={tmp_path / 'mine.csv'}"])
    with refused("PLACE must name a run whose rows --submit is to write"):
        board.main([str(sent(row())), "--by=Bob", f"--submit={tmp_path / 'mine.csv'}"])
    first = sent(row(), name="a.csv")
    with refused("got two rows in ", "a.csv and ", "b.csv"):
        board_rows.find([str(first), str(sent(row(), name="b.csv"))], "")
