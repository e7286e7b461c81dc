"""The OpenAPI document of the API."""

from typing import Any

_TAG = {"type": "string", "description": "Chosen by the caller; its calls are counted under it.", "default": ""}


def _body(name: str) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}


def _answers(*statuses: int) -> dict[str, Any]:
    return {str(status): {"description": "As JSON.", "content": {"application/json": {}}} for status in statuses}


def _query(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": kind, **more}}


DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Shop", "version": "1"},
    "servers": [{"url": "/"}],
    "paths": {
        "/orders/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {
                "operationId": "getOrder",
                "summary": "Looks an order up.",
                "parameters": [{"$ref": "#/components/parameters/tag"}],
                "responses": _answers(200, 404),
            },
        },
        "/orders": {
            "post": {
                "operationId": "createOrder",
                "summary": "Places an order.",
                "description": "With an Idempotency-Key, the same order is placed only once.",
                "parameters": [{"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}],
                "requestBody": _body("NewOrder"),
                "responses": _answers(200, 201, 422),
            }
        },
        "/payments": {
            "post": {
                "operationId": "createPayment",
                "summary": "Pays for an order.",
                "requestBody": _body("NewPayment"),
                "responses": _answers(201),
            }
        },
        "/private": {
            "get": {
                "operationId": "getPrivate",
                "summary": "Tells whether the caller has shown the secret in the header X-Api-Key.",
                "parameters": [{"$ref": "#/components/parameters/tag"}],
                "security": [{"key": []}],
                "responses": _answers(200, 401),
            }
        },
        "/slow": {
            "get": {
                "operationId": "getSlow",
                "summary": "Answers after some seconds.",
                "parameters": [_query("seconds", "number", minimum=0), {"$ref": "#/components/parameters/tag"}],
                "responses": _answers(200),
            }
        },
        "/failing/{status}": {
            "post": {
                "operationId": "postFailing",
                "summary": "Fails, after it has taken effect.",
                "parameters": [{"name": "status", "in": "path", "required": True, "schema": {"type": "integer"}}],
                "requestBody": _body("Tagged"),
                "responses": _answers(500),
            }
        },
        "/large": {
            "get": {
                "operationId": "getLarge",
                "summary": "Answers with that many bytes.",
                "parameters": [_query("bytes", "integer", minimum=0, maximum=10_000_000)],
                "responses": _answers(200),
            }
        },
    },
    "components": {
        "parameters": {"tag": _query("tag", "string")},
        "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"}},
        "schemas": {
            "Tagged": {"type": "object", "properties": {"tag": _TAG}},
            "NewOrder": {
                "type": "object",
                "required": ["item"],
                "properties": {
                    "item": {"type": "string"},
                    "quantity": {"type": "integer", "minimum": 1, "default": 1},
                    "tag": _TAG,
                },
            },
            "NewPayment": {
                "type": "object",
                "required": ["order", "amount"],
                "properties": {"order": {"type": "string"}, "amount": {"type": "number"}, "tag": _TAG},
            },
        },
    },
}
