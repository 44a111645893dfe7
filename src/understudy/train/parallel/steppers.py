"""Which stepper a strategy wants."""

from __future__ import annotations

from understudy.train.parallel.averaging import LocalStepper
from understudy.train.parallel.serving import ServerStepper
from understudy.train.stepper import Stepper

STEPPERS: dict[str, type[Stepper]] = {"local_sgd": LocalStepper, "async_ps": ServerStepper}


def stepper_for(strategy: str) -> type[Stepper]:
    """Return the class that takes steps under a strategy of `TrainConfig`."""
    return STEPPERS.get(strategy, Stepper)
