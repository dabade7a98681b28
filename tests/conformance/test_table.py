"""The table in docs/api.md."""

import re
from pathlib import Path

HERE = Path(__file__).parent
API = HERE.parents[1] / "docs" / "api.md"


def test_every_row_of_the_table_names_tests_and_every_test_is_in_a_row():
    table = API.read_text().partition("## Row of the reference")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| row |")]
    written = {
        name
        for path in HERE.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), flags=re.MULTILINE)
    }

    named = [set(re.findall(r"`(test_\w+)`", row)) for row in rows]

    assert len(rows) > 100
    assert [row for row, names in zip(rows, named, strict=True) if not names] == []
    assert set().union(*named) == written
