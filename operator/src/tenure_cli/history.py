"""`history`: what was said in a session."""

import argparse

from tenure_cli.console import safe
from tenure_cli.reach import Reach
from tenure_cli.screen import described, message_text


def run(reach: Reach, options: argparse.Namespace) -> None:
    """`history SESSION`. Wakes the session: only its own sidecar can read its journal."""
    session = reach.key(options.session)
    console = reach.console
    items = reach.gateway.items(session)
    if console.as_json:
        console.result({"session": str(session), "items": list(items)}, "")
        return
    shown = safe if console.stdout.isatty() else str
    for item in items:
        match item["type"]:
            case "message":
                console.line(f"{console.bold(item['role'] + ':')} {shown(message_text(item))}")
            case "mcp_call":
                what = described(item["server_label"], item["name"], item["arguments"])
                outcome = {"completed": "", "incomplete": "  (outcome unknown)"}.get(item["status"], "  (failed)")
                console.line(console.dim(shown(f"→ {what}{outcome}")))
            case "mcp_approval_request":
                what = described(item["server_label"], item["name"], item["arguments"])
                console.line(console.dim(shown(f"? approval asked for {what}")))
