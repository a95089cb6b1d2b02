"""Types and checks that the sections of a recipe share.

Every number has a lower and an upper bound, within which memory, thread counts and float32 arithmetic work.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function

SEEDS = 2**32

Auto = Literal["auto"]
Text = Annotated[str, Field(min_length=1)]
# A share of something, from none to almost all of it.
Fraction = Annotated[float, Field(ge=0.0, le=0.999)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(ge=1e-6, le=1.0)]
# The share of images that a split takes.
SplitShare = Annotated[float, Field(ge=1e-6, le=0.999)]
Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
Batch = Annotated[int, Field(ge=1, le=1_000_000)]
Seed = Annotated[int, Field(ge=0, le=SEEDS - 1)]
OptimizerName = Literal["sgd", "adamw", "lbfgs"]
ScheduleName = Literal["cosine", "one_cycle", "step", "constant"]

# A path of keys below the section that checks it, and a message.
Fault = tuple[tuple[str | int, ...], str]


class ConflictError(ValueError):
    """Keys that are valid alone but not together.

    Each of ``faults`` is the path of the key to change, from the section that checks it, and a message.
    Pydantic puts this error into the context of its error.
    """

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        super().__init__("; ".join(message for _, message in faults))


def raise_conflicts(faults: list[Fault]) -> None:
    """Raise a :class:`ConflictError` if there are any faults."""
    if faults:
        raise ConflictError(*faults)


@dataclass(frozen=True)
class ZeroOr:
    """Allows 0 and numbers from ``low`` to ``high``. Some arithmetic would round a smaller number to 0."""

    low: float
    high: float

    def _check(self, value: float) -> float:
        if value and not self.low <= value <= self.high:
            raise ValueError(f"must be 0, or a number from {self.low:g} to {self.high:g}; it is {value:g}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        number = handler(schema) | {"minimum": self.low, "maximum": self.high}
        return {"anyOf": [{"const": 0}, number]}


Decay = Annotated[float, ZeroOr(1e-12, 100.0)]
Warmup = Annotated[float, ZeroOr(1e-6, 999_999.0)]


class Section(BaseModel):
    """Base of all sections: strict types, frozen, no unknown keys, finite numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def default_of(section: type[Section], key: str) -> Any:
    """The default of ``key`` in ``section``."""
    return section.model_fields[key].get_default(call_default_factory=True)
