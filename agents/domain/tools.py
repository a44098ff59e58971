"""The agents' abilities as typed tools: what a planner may call, and with which arguments.

A tool never takes a brand: the run it is called in says for whom. ``reads`` only looks; ``proposes``
leaves something for a person to decide: a plan, a test, a question that costs, a text; nothing here spends or publishes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agents.domain import toolcalls
from rmn.lib.errors import BadInput


class Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)


class Window(Arguments):
    start: date | None = Field(None, description="first day, inclusive")
    end: date | None = Field(None, description="last day, inclusive")


class ReadMetrics(Window):
    """Totals per network, campaign type and currency, from one grain each."""


class HarmonizeStatus(Arguments):
    """Loads of the last days: rows, quarantine, freshness."""

    days: int = Field(30, ge=1, le=3660, description="how far back")


class FitResponse(Window):
    """Fit response curves to the loaded metrics."""


class AllocateBudget(Arguments):
    """Propose a split of a budget over the fitted arms."""

    total_budget: float | None = Field(
        None, gt=0, description="money of the plan's period; the last period's where absent"
    )
    weeks: int = Field(13, ge=1, le=104, description="length of the plan")
    unavailable: list[str] = Field(default_factory=list, description="arms or campaigns that cannot be bought")


class WhatIf(Arguments):
    """What other budgets would bring, for the newest plan."""

    budgets: list[float] = Field(min_length=1, max_length=50)


class DesignExperiment(Arguments):
    """Design a geo test on the retailer's own sales."""

    duration: int = Field(6, ge=1, le=52, description="weeks")
    most_units: int = Field(12, ge=1, le=200, description="stores treated at most")


class AnalyzeExperiment(Arguments):
    """What a test of the brand found: lift, interval, iROAS, verdict."""

    name: str = Field("", max_length=160, description="words of its name; the newest where empty")


class CheckCopy(Arguments):
    """Check a text against a network's rules."""

    text: str = Field(max_length=2000)
    network: str
    product: str = ""


class QueryCleanRoom(Arguments):
    """Propose a reviewed question to one of the brand's clean rooms; it costs of the privacy budget once people approve it."""

    connection: str = Field(max_length=80, description="the clean room's name")
    template: str = Field(max_length=80)
    parameters: dict[str, Any] = Field(default_factory=dict)


class WriteCopy(Arguments):
    """Write headlines for a product; those that pass the rules are put before people."""

    product: str = Field(max_length=240)
    feature: str = Field("", max_length=240)
    variants: int = Field(5, ge=1, le=12)


class ScanPersonalData(Arguments):
    """Find personal data in a text."""

    text: str = Field(max_length=20_000)


class RecallLessons(Arguments):
    """What earlier decisions of this kind came to."""

    about: str = Field("", max_length=200)


@dataclass(frozen=True)
class Tool:
    name: str
    arguments: type[Arguments]
    effect: str  # reads or proposes

    @property
    def schema(self) -> dict[str, Any]:
        """As chat models are told: name, description, parameters."""
        parameters = self.arguments.model_json_schema()
        words = parameters.pop("description", "") or (self.arguments.__doc__ or "").strip()
        return {"name": self.name, "description": words, "parameters": parameters}

    def read(self, given: dict[str, Any]) -> Arguments:
        """Checked arguments.

        Raises:
            BadInput: the first thing wrong, by its place.
        """
        try:
            return self.arguments.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            raise BadInput(f"{self.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("read_metrics", ReadMetrics, "reads"),
        Tool("harmonize_status", HarmonizeStatus, "reads"),
        Tool("fit_response", FitResponse, "reads"),
        Tool("allocate_budget", AllocateBudget, "proposes"),
        Tool("what_if", WhatIf, "reads"),
        Tool("design_experiment", DesignExperiment, "proposes"),
        Tool("analyze_experiment", AnalyzeExperiment, "reads"),
        Tool("check_copy", CheckCopy, "reads"),
        Tool("write_copy", WriteCopy, "proposes"),
        Tool("query_clean_room", QueryCleanRoom, "proposes"),
        Tool("scan_personal_data", ScanPersonalData, "reads"),
        Tool("recall_lessons", RecallLessons, "reads"),
    )
}


def validate(raw: str, endings: Mapping[str, Any] | None = None) -> toolcalls.Reading:
    """Calls in a model's own words, checked against the tools; ``endings`` are names that are no tools, with schemas."""
    more = [{"name": name, "parameters": schema} for name, schema in (endings or {}).items()]
    return toolcalls.validate([*(tool.schema for tool in TOOLS.values()), *more], raw)
