"""Types and rules that the specs of several kinds share."""

from typing import Annotated

from pydantic import ConfigDict, Field

from tenure_api.markers import Resource, cel, rule, validated

ORIGIN = r"^https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?"
"""How a URL without credentials begins, as a regular expression in a CEL string."""
URL = rule(
    rf"self.matches('{ORIGIN}"
    r"(/[A-Za-z0-9._~%!$&()*+,;=:@/-]*)?$')",
    "must be an http:// or https:// URL without credentials or query, such as https://api.openai.com/v1",
)
PORT = rule(
    "!isURL(self) || url(self).getPort() == '' || int(url(self).getPort()) <= 65535",
    "must have a port from 0 to 65535",
)
IMAGE = rule(
    "self.matches('^[A-Za-z0-9][A-Za-z0-9._:/@-]*$')",
    "must be an image reference, such as registry.example.com/team/agent:1.2.0",
)
DNS_NAME = rule(
    "self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')",
    "must be the name of an object in this namespace: lower-case letters, digits, '-' and '.'",
)
_SECRET_KEY = rule(
    "self.matches('^[A-Za-z0-9._-]+$') && self != '.' && self != '..'",
    "must be a key of the Secret: letters, digits, '-', '_' and '.'",
)
QUANTITY = rule(
    "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
    "must be a positive Kubernetes quantity, such as 500m, 512Mi or 2Gi",
)


def _within_limit(amount: str) -> dict[str, str]:
    """The rule that a request is not above its limit; amounts that are no quantities are left to their own rule."""
    request, limit = f"self.requests.{amount}", f"self.limits.{amount}"
    return rule(
        f"!has(self.requests) || !has({request}) || !has(self.limits) || !has({limit}) || "
        f"!isQuantity({request}) || !isQuantity({limit}) || quantity({request}).compareTo(quantity({limit})) <= 0",
        f"requests.{amount} must not be greater than limits.{amount}",
    )


ObjectName = Annotated[str, Field(min_length=1, max_length=253), cel(DNS_NAME)]
Quantity = Annotated[str, Field(min_length=1, max_length=32), cel(QUANTITY)]


class SecretKeyRef(Resource):
    """A key of a Secret in the same namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: Annotated[str, Field(min_length=1, max_length=253), cel(_SECRET_KEY)] = Field(
        "api-key", description="Key in the Secret whose value is the credential."
    )


class Amounts(Resource):
    """Amounts of CPU and memory."""

    cpu: Quantity | None = Field(None, description="CPU, such as 500m.")
    memory: Quantity | None = Field(None, description="Memory, such as 512Mi.")


class Resources(Resource):
    """What a container asks for and may use at most."""

    model_config = ConfigDict(json_schema_extra=validated(_within_limit("cpu"), _within_limit("memory")))
    requests: Amounts | None = Field(None, description="Amounts reserved for the container.")
    limits: Amounts | None = Field(None, description="Amounts that the container cannot exceed.")
