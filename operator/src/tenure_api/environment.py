"""How the processes of the control plane read their settings: one environment variable for each field."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

PREFIX = "TENURE_"

SettingsT = TypeVar("SettingsT", bound=BaseModel)


class InvalidSettingsError(Exception):
    """The environment does not say what it must; the message names each variable and what is wrong with it."""


def read(settings: type[SettingsT], environment: Mapping[str, str]) -> SettingsT:
    """The settings in `environment`; field `x_y` is the variable `TENURE_X_Y`. An empty variable counts as unset.

    Raises `InvalidSettingsError`.
    """
    variables = {name: PREFIX + name.upper() for name in settings.model_fields}
    given = {name: environment[variable] for name, variable in variables.items() if environment.get(variable)}
    try:
        return settings.model_validate(given)
    except ValidationError as error:
        wrong = [f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        raise InvalidSettingsError("; ".join(wrong)) from None
