from __future__ import annotations

import polars as pl
import pytest
from django.core.management import call_command

from retailers.domain import identifiers


def look(code: str, **options) -> dict:
    return identifiers.examine(pl.Series([code]), **options).to_list()[0]


@pytest.mark.parametrize(
    ("code", "kind", "valid", "gtin14"),
    [
        ("036000291452", "upc_a", True, "00036000291452"),
        ("4006381333931", "ean13", True, "04006381333931"),
        ("10054800351838", "gtin14", True, "10054800351838"),
        ("06543217", "upc_e", True, "00065100004327"),
        ("9780306406157", "isbn", True, "09780306406157"),
        ("0-306-40615-2", "isbn", True, "09780306406157"),
        ("00000000004065", "plu", False, None),
        ("036000291453", "upc_a", False, None),
        ("123456789012", "upc_a", False, None),
        ("x", "unknown", False, None),
    ],
)
def test_each_kind_of_number_is_told_and_its_check_digit_tried(code, kind, valid, gtin14):
    found = look(code, declared="upc" if kind == "upc_e" else "any")
    assert (found["kind"], found["valid"], found["gtin14"]) == (kind, valid, gtin14)


def test_long_codes_read_by_table_equal_the_rule_written_out():
    rng = pl.Series(range(1, 40_000, 7)) * 250_000_071 % 10**13
    codes = [str(number).zfill(13) for number in rng]
    valid = identifiers.examine(pl.Series(codes)).struct.field("valid").to_list()
    plain = [sum(int(c) * (1, 3)[place % 2] for place, c in enumerate(reversed(code))) % 10 == 0 for code in codes]
    assert valid == plain


def test_short_and_long_codes_keep_their_order():
    codes = ["4065", "036000291452", None, "abc", "4006381333931", "06543217"]
    kinds = identifiers.examine(pl.Series(codes), "upc").struct.field("kind").to_list()
    assert kinds == ["plu", "upc_a", "unknown", "unknown", "ean13", "upc_e"]


def test_a_case_contains_its_item_under_another_check_digit():
    assert identifiers.inner_item("10054800351838") == "00054800351831"
    assert identifiers.inner_item("00054800351831") is None


def test_repair_is_done_only_when_allowed_and_says_so():
    assert look("58978500076")["valid"] is False
    repaired = look("58978500076", repair=True)
    assert (repaired["gtin14"], repaired["repaired"]) == ("00589785000769", True)


def test_the_command_adds_its_columns_and_keeps_the_file_s_own(tmp_path):
    source = tmp_path / "p.csv"
    source.write_text("sku,UPC Code,valid\na,036000291452,yes\nb,208528800007,no\nc,,\n", encoding="utf-8")
    call_command("check_gtins", str(source), "--column", "upc_code", "--out", str(tmp_path / "out.csv"))
    table = pl.read_csv(tmp_path / "out.csv", infer_schema=False)
    assert table.columns == ["sku", "UPC Code", "valid_in", "gtin14", "valid", "kind", "restricted", "reason"]
    assert table["valid"].to_list() == ["true", "true", "false"]
    assert table["restricted"].to_list() == ["false", "true", "false"]
    assert table["reason"].to_list()[2] == "empty"


def test_an_unknown_column_is_one_line_with_the_columns_there_are(tmp_path, capsys):
    source = tmp_path / "p.csv"
    source.write_text("sku,upc\na,036000291452\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        call_command("check_gtins", str(source), "--column", "ean", "--out", str(tmp_path / "out.csv"))
    assert capsys.readouterr().err.strip() == "check_gtins: p.csv: no column 'ean'; it has 'sku', 'upc'"
