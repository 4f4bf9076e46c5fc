"""What a laboratory keeps, described once: tables, forms, lists and the API follow from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Final, Literal

from sqlalchemy import Boolean, Column, Date, Integer, MetaData, Table, Text

FieldType = Literal["text", "long", "date", "integer", "yes", "colour", "ref"]
TYPES: Final = {
    "text": Text,
    "long": Text,
    "date": Date,
    "integer": Integer,
    "yes": Boolean,
    "colour": Text,
    "ref": Integer,
}
LONGEST: Final = {"text": 120, "long": 4000}
"""Characters."""

metadata: Final = MetaData()


class Fault(ValueError):
    """What is wrong with one value, in a sentence."""


@dataclass(frozen=True)
class Field:
    """One column of a table, as people fill it in."""

    name: str
    label: str
    type: FieldType = "text"
    required: bool = False
    to: str = ""  # for a "ref": the kind it names
    default: Any = None
    low: int = 0
    high: int = 1_000_000
    hint: str = ""

    def read(self, given: Any) -> Any:
        """The value of what a form or a JSON document gives. Raises `Fault`."""
        if given is None or (isinstance(given, str) and not given.strip()):
            return self._nothing()
        return getattr(self, f"_{self.type}")(given)

    def _nothing(self) -> Any:
        if self.required:
            raise Fault(f"{self.label} is missing.")
        return {"text": "", "long": "", "yes": False}.get(self.type)

    def _text(self, given: Any) -> str:
        value = str(given).replace("\0", "").encode(errors="replace").decode().strip()  # what PostgreSQL can store
        if len(value) > LONGEST.get(self.type, 20):
            raise Fault(f"{self.label} has at most {LONGEST.get(self.type, 20)} characters.")
        return value

    _long = _text

    def _date(self, given: Any) -> date:
        try:
            found = date.fromisoformat(str(given).strip())
        except ValueError as error:
            raise Fault(f"{self.label} is no date such as 2026-03-30.") from error
        if not 2000 <= found.year < 2200:
            raise Fault(f"{self.label} lies between 2000 and 2199.")
        return found

    def _integer(self, given: Any) -> int:
        text = str(given).strip()
        if isinstance(given, bool) or not re.fullmatch(r"-?\d{1,9}", text) or not self.low <= int(text) <= self.high:
            raise Fault(f"{self.label} is a number from {self.low} to {self.high}.")
        return int(text)

    def _yes(self, given: Any) -> bool:
        if isinstance(given, bool):
            return given
        if str(given) not in ("yes", "no"):
            raise Fault(f"{self.label} is yes or no.")
        return str(given) == "yes"

    def _colour(self, given: Any) -> str:
        value = str(given).strip().lower()
        if not re.fullmatch(r"#[0-9a-f]{6}", value):
            raise Fault(f"{self.label} is a colour such as #3568d4.")
        return value

    def _ref(self, given: Any) -> int:
        if isinstance(given, bool) or not re.fullmatch(r"[1-9]\d{0,8}", str(given).strip()):
            raise Fault(f"{self.label} is none of the choices.")
        return int(given)


@dataclass(frozen=True)
class Kind:
    """One kind of thing."""

    path: str  # "bookings": /api/bookings and /bookings
    name: str  # its table
    title: str
    one: str  # "booking", in sentences
    fields: tuple[Field, ...]
    order: tuple[str, ...]
    manage: bool = False  # only admins change it
    group: str = ""  # where the menu has it
    about: str = ""

    @cached_property
    def table(self) -> Table:
        columns = (Column(one.name, TYPES[one.type]) for one in self.fields)
        return Table(self.name, metadata, Column("id", Integer, primary_key=True), *columns)

    @property
    def refs(self) -> tuple[Field, ...]:
        return tuple(one for one in self.fields if one.type == "ref")

    def blank(self) -> dict[str, Any]:
        return {one.name: one.default for one in self.fields}

    def read(self, given: Mapping[str, Any], *, partly: bool = False) -> tuple[dict[str, Any], dict[str, str]]:
        """The values of a form or a JSON document, and by field what is wrong with it."""
        values: dict[str, Any] = {}
        wrong = {name: f"There is no {name}." for name in given.keys() - {one.name for one in self.fields}}
        for one in self.fields:
            if partly and one.name not in given:
                continue
            try:
                found = one.read(given.get(one.name, one.default))
                values[one.name] = one.default if found is None and one.default is not None else found
            except Fault as error:
                wrong[one.name] = str(error)
        return values, wrong


NAME: Final = Field("name", "Name", required=True)
STARTS: Final = Field("starts", "From", "date", required=True)
ENDS: Final = Field("ends", "Until", "date", required=True, hint="the last day")

_ALL: Final = (
    Kind("bookings", "booking", "Bookings", "booking", (
        Field("project_id", "Project", "ref", required=True, to="projects"),
        Field("phase_id", "Phase", "ref", to="phases"),
        Field("staff_id", "Person", "ref", to="staff", hint="a person or a piece of equipment"),
        Field("equipment_id", "Equipment", "ref", to="equipment"),
        STARTS, ENDS,
        Field("percent", "Per cent", "integer", default=100, low=5, high=100, hint="of each day"),
        Field("remark", "Remark"),
    ), ("starts", "id"), group="plan"),
    Kind("projects", "project", "Projects", "project", (
        NAME, Field("code", "Code", hint="short, for the plan"),
        Field("colour", "Colour", "colour", default="#3568d4"), STARTS, ENDS,
    ), ("starts", "name"), group="plan"),
    Kind("phases", "phase", "Phases", "phase", (
        Field("project_id", "Project", "ref", required=True, to="projects"), NAME, STARTS, ENDS,
        Field("milestone", "Ends with a milestone", "yes", default=False),
    ), ("project_id", "starts"), group="plan"),
    Kind("staff", "staff", "People", "person", (
        NAME, Field("role", "Role"), Field("site_id", "Site", "ref", required=True, to="sites"),
        Field("percent", "Contract", "integer", default=100, low=5, high=100, hint="per cent of full time"),
        Field("joined", "Joined", "date"), Field("leaves", "Leaves", "date"),
    ), ("name",), group="plan"),
    Kind("vacations", "vacation", "Vacations", "vacation", (
        Field("staff_id", "Person", "ref", required=True, to="staff"), STARTS, ENDS,
        Field("reason", "Reason", default="vacation"),
    ), ("starts", "id"), group="plan"),
    Kind("equipment", "equipment", "Equipment", "piece of equipment", (
        NAME, Field("model", "Model"), Field("site_id", "Site", "ref", required=True, to="sites"),
        Field("skill_id", "Needs", "ref", to="skills"),
    ), ("name",), group="plan"),
    Kind("notes", "note", "Notes", "note", (
        Field("body", "Note", "long", required=True), Field("day", "Day", "date"),
        Field("project_id", "Project", "ref", to="projects", hint="about a project or a person"),
        Field("staff_id", "Person", "ref", to="staff"),
    ), ("day", "id"), group="more"),
    Kind("skills", "skill", "Skills", "skill", (NAME,), ("name",), group="more"),
    Kind("staff-skills", "staff_skill", "Who can do what", "skill of a person", (
        Field("staff_id", "Person", "ref", required=True, to="staff"),
        Field("skill_id", "Skill", "ref", required=True, to="skills"),
        Field("level", "Level", "integer", default=2, low=1, high=3, hint="1 learning, 2 able, 3 teaches"),
    ), ("staff_id", "skill_id"), group="more"),
    Kind("phase-skills", "phase_skill", "What phases ask for", "skill of a phase", (
        Field("phase_id", "Phase", "ref", required=True, to="phases"),
        Field("skill_id", "Skill", "ref", required=True, to="skills"),
    ), ("phase_id", "skill_id"), group="more"),
    Kind("sites", "site", "Sites", "site", (NAME, Field("city", "City")), ("name",), manage=True, group="more"),
    Kind("holidays", "holiday", "Holidays", "holiday", (
        Field("day", "Day", "date", required=True), NAME,
        Field("site_id", "Site", "ref", to="sites", hint="none: every site"),
    ), ("day", "id"), manage=True, group="more"),
    Kind("columns", "plan_column", "Columns", "column", (
        Field("title", "Title", required=True), Field("position", "Position", "integer", default=10),
        Field("shown", "Shown in the plan", "yes", default=True),
    ), ("position", "title"), manage=True, group="more", about="Columns of your own, beside the names in the plan."),
    Kind("column-values", "column_value", "Values of columns", "value", (
        Field("column_id", "Column", "ref", required=True, to="columns"),
        Field("staff_id", "Person", "ref", to="staff"), Field("equipment_id", "Equipment", "ref", to="equipment"),
        Field("value", "Value", required=True),
    ), ("column_id", "id"), group="more"),
    Kind("settings", "setting", "Settings", "setting", (NAME, Field("value", "Value")), ("name",), manage=True,
         group="more"),
)  # fmt: skip

KINDS: Final[Mapping[str, Kind]] = {kind.path: kind for kind in _ALL}
for _kind in _ALL:
    assert _kind.table is not None  # known to the metadata from now on

CONFLICTS: Final = {
    "equipment_once": "That piece of equipment is booked for another project on some of these days.",
    "vacation_once": "That person is away on some of these days already.",
    "booking_dates": "A booking ends on or after the day it begins, and within ten years.",
    "booking_who": "Choose a person or a piece of equipment, and not both.",
    "booking_phase": "That phase belongs to another project.",
    "note_about": "A note is about a project or about a person, and not both.",
    "column_value_of": "A value belongs to a person or to a piece of equipment, and not both.",
    "vacation_dates": "It ends on or after the day it begins.",
    "project_dates": "A project ends on or after the day it begins.",
    "phase_dates": "A phase ends on or after the day it begins.",
    "staff_dates": "Nobody leaves before joining.",
}
"""What the database's own rules mean to people, by the constraint's name."""
