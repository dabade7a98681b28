"""What the terminal shows of the statistics."""

from io import StringIO

from rich.console import Console

from cryomamba.commands.terminal import statistics_table
from cryomamba.models import StatisticsFile


def shown(**fields: object) -> list[str]:
    told = {
        "label_counts": {"1": 1234, "10": 0},
        "physical_volume_nm3": {},
        "surface_area_nm2": {},
        "labels": {"1": {"name": "membrane", "colour": "#56b4e9"}},
        "voxel_size_nm": None,
        "voxel_size_source": "unknown",
    }
    console = Console(file=StringIO(), width=100)
    console.print(statistics_table(StatisticsFile.model_validate(told | fields)))
    assert isinstance(console.file, StringIO)
    return [line.replace("┃", " ").replace("│", " ").strip() for line in console.file.getvalue().splitlines()]


def test_components_are_shown_beside_the_voxels() -> None:
    lines = [line.split() for line in shown(component_counts={"1": 5678, "10": 0})]

    assert ["Label", "Name", "Voxels", "Components"] in lines
    assert ["1", "membrane", "1,234", "5,678"] in lines
    assert ["10", "0", "0"] in lines


def test_statistics_of_an_older_server_have_no_column_for_them() -> None:
    lines = [line.split() for line in shown()]

    assert ["Label", "Name", "Voxels"] in lines
    assert ["1", "membrane", "1,234"] in lines
