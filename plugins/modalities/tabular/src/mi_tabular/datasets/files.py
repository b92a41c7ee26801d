"""Tables in files: ``csv-table:PATH``, and known tables below the data root."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from mi_tabular.datasets.dataset import TableDataset
from mi_tabular.datasets.parts import PartOptions, Records, divided
from mi_tabular.datasets.reading import Lines, coded_as, read_lines, to_records
from micore.errors import DataError
from micore.kit.dataset_options import PathText, find_place, read_options, refuse_location, require_file


class CsvTableOptions(PartOptions):
    """Options of ``csv-table``."""

    label: str = Field("label", description="Column that the target predicts")
    sensitive: str = Field("sensitive", description="Column that the adversary wants, of few values")
    drop: str = Field("", description="Columns to leave out, such as id,name")
    missing: Literal["refuse", "drop", "category"] = Field(
        "refuse", description="Cells without a value: an error, rows left out, or a category of their own"
    )
    public_file: PathText = Field("", description="Another table with the same columns: the adversary's rows")


def open_csv_table(location: str | None, **options: Any) -> TableDataset:
    """Open ``csv-table:PATH``, a table of the user's whose first row names the columns.

    Raises: DataError that names the file, line, column or option at fault.
    """
    settings = read_options(CsvTableOptions, "csv-table", options)
    if not location:
        raise DataError("csv-table needs a file", hint="csv-table:PATH -D label=COLUMN -D sensitive=COLUMN")
    lines = _cleaned(read_lines(find_place(settings, location)), settings)
    records = to_records(lines, settings.label, settings.sensitive, keeps_missing=settings.missing == "category")
    public = None
    if settings.public_file:
        others = _cleaned(read_lines(find_place(settings, settings.public_file)), settings)
        public = coded_as(others, records.schema, settings.label, records.classes)
    return divided(f"csv-table:{location}", records, settings, settings.model_dump(exclude_none=True), public)


def _cleaned(lines: Lines, settings: CsvTableOptions) -> Lines:
    """Leave out what the user does not want."""
    dropped = [name.strip() for name in settings.drop.split(",") if name.strip()]
    for name in dropped:
        lines.require(name, "-D drop")
    lines = lines.named({name: name for name in lines.columns if name not in dropped})
    lines.require(settings.label, "-D label")
    if settings.missing == "refuse":
        return lines
    return lines.whole(None if settings.missing == "drop" else [settings.label])


# known tables ---------------------------------------------------------------------------------------------


class AdultOptions(PartOptions):
    """Options of ``adult``."""

    private: int | None = Field(10_000, ge=10, description="Rows that the target learns from")
    holdout: int | None = Field(10_000, ge=10, description="Rows that it never sees")
    sensitive: Literal["marital-status", "relationship", "race", "sex"] = Field(
        "marital-status", description="Column that the adversary wants"
    )


def open_adult(location: str | None, **options: Any) -> TableDataset:
    """Open ``adult``, income in a census; marital status is married or not, as in the papers.

    ``relationship``, which tells the marital status, is left out unless it is the sensitive column; so are
    ``fnlwgt`` and ``education-num``. Raises: DataError without the files.
    """
    settings = _settings("adult", AdultOptions, location, options)
    parts = [read_lines(require_file("adult", settings, f"tabular/adult/adult_{part}.csv.gz"))
             for part in ("train", "test")]  # fmt: skip
    columns = {name: cells + parts[1].columns[name] for name, cells in parts[0].columns.items()}
    lines = replace(parts[0], columns=columns, numbers=parts[0].numbers + parts[1].numbers)
    other = {"relationship", "marital-status"} - {settings.sensitive}
    left_out = {"fnlwgt", "education-num"} | (other if len(other) == 1 else {"relationship"})
    lines = lines.named({name: name for name in lines.columns if name not in left_out})
    if "marital-status" in lines.columns:
        lines = lines.mapped("marital-status", lambda cell: "married" if cell.startswith("Married") else "single")
    lines = lines.mapped("native-country", lambda cell: cell if cell == "United-States" else "other")
    records = to_records(lines, "income", settings.sensitive, keeps_missing=True)
    return _divided("adult", records, settings)


class SteakOptions(PartOptions):
    """Options of ``steak``."""

    sensitive: Literal["cheated", "smoke", "gamble"] = Field("cheated", description="Column that the adversary wants")


def open_steak(location: str | None, **options: Any) -> TableDataset:
    """Open ``steak``: how people who eat steak like it, and what else they said (Fredrikson et al., 2015).

    Rows with a missing answer are left out: 331 are left. Raises: DataError without the file.
    """
    settings = _settings("steak", SteakOptions, location, options)
    lines = read_lines(require_file("steak", settings, "tabular/steak/steak-risk-survey.csv"), _STEAK)
    # the second line says "Response" in all columns but the first, which is empty
    lines = lines.whole().named({name: name for name in _STEAK if name not in ("id", "eats")})
    return _divided("steak", to_records(lines, "steak", settings.sensitive), settings)


_STEAK = (
    "id", "lottery", "smoke", "drink", "gamble", "skydiving", "speeding", "cheated", "eats", "steak", "gender", "age",
    "household-income", "education", "region",
)  # fmt: skip


class HappyOptions(PartOptions):
    """Options of ``happy``."""

    private: int | None = Field(10_000, ge=10, description="Rows that the target learns from")
    holdout: int | None = Field(10_000, ge=10, description="Rows that it never sees")
    sensitive: Literal["marital", "health", "finrela"] = Field("marital", description="Column that the adversary wants")


def open_happy(location: str | None, **options: Any) -> TableDataset:
    """Open ``happy``: how happy people said to be in the General Social Survey; marital status is married or not.

    Rows with a missing answer are left out. Raises: DataError without the file.
    """
    settings = _settings("happy", HappyOptions, location, options)
    lines = read_lines(require_file("happy", settings, "tabular/gss_happy/happy.csv.gz"))
    lines = lines.named({name: name for name in lines.columns if name not in ("id", "wtssall")}).whole()
    lines = lines.mapped("marital", lambda cell: cell if cell == "married" else "not married")
    return _divided("happy", to_records(lines, "happy", settings.sensitive), settings)


class WarfarinOptions(PartOptions):
    """Options of ``warfarin``."""

    sensitive: Literal["vkorc1", "cyp2c9"] = Field("vkorc1", description="Genotype that the adversary wants")


def open_warfarin(location: str | None, **options: Any) -> TableDataset:
    """Open ``warfarin``: a stable dose of low (to 21 mg a week), medium or high (from 49 mg), by patient and genotypes.

    Rows without dose, age, height, weight or genotypes are left out; other missing cells are a category. CYP2C9 is
    ``*1/*1``, one changed allele, or two. Raises: DataError without the file.
    """
    settings = _settings("warfarin", WarfarinOptions, location, options)
    lines = read_lines(require_file("warfarin", settings, "tabular/warfarin/warfarin.csv.gz"))
    lines = lines.named(_WARFARIN).whole(("dose", "age", "height", "weight", "vkorc1", "cyp2c9"))
    lines = lines.mapped("dose", _dose)
    lines = lines.mapped("cyp2c9", lambda cell: f"{2 - cell.count('*1')} changed")
    return _divided("warfarin", to_records(lines, "dose", settings.sensitive, keeps_missing=True), settings)


_WARFARIN = {
    "Gender": "gender", "Race": "race", "Age": "age", "Height (cm)": "height", "Weight (kg)": "weight",
    "Diabetes": "diabetes", "Valve Replacement": "valve", "Aspirin": "aspirin", "Amiodarone (Cordarone)": "amiodarone",
    "Current Smoker": "smoker", "CYP2C9 consensus": "cyp2c9", "VKORC1 -1639 consensus": "vkorc1",
    "Therapeutic Dose of Warfarin": "dose",
}  # fmt: skip


def _dose(cell: str) -> str:
    return "low" if float(cell) <= 21 else "high" if float(cell) >= 49 else "medium"


def _settings(name: str, model: type[Any], location: str | None, options: Mapping[str, Any]) -> Any:
    refuse_location(name, location)
    return read_options(model, name, options)


def _divided(name: str, records: Records, settings: PartOptions) -> TableDataset:
    return divided(name, records, settings, settings.model_dump(exclude_none=True))
