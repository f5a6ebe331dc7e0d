"""What `trunkline check` says about tools."""

import os
import sys

from agent.tools.look import ToolFinding, look_at_tools
from agent.tools.settings import ToolSettings

HERE = "tests.tools.functions"


async def test_every_tool_is_looked_at() -> None:
    """What can be used is said to be, and what cannot is named with the reason."""
    http = {"name": "shop", "description": "Ask.", "url": "http://127.0.0.1:9/x"}
    child = [sys.executable, "-m", "tests.tools.mcp_child"]
    base = {"tools": ["status"], "base_env": {"PATH": os.environ["PATH"]}}
    settings = ToolSettings.model_validate(
        {
            "python": [{"function": f"{HERE}:order"}, {"function": f"{HERE}:fly"}],
            "http": [http, http | {"name": "own_shop", "allow_private": True}],
            "mcp": [
                {"name": "crm", "command": child, **base},
                {"name": "gone", "command": ["/no/such/program"], **base},
            ],
        }
    )
    found = {it.name: it async for it in look_at_tools(settings)}
    assert found["order"] == ToolFinding("order", True, f"calls {HERE}:order")
    assert found["fly"] == ToolFinding("fly", False, f"{HERE} has no fly")
    assert not found["shop"].is_usable
    assert "allow_private = true permits it" in found["shop"].text
    assert found["own_shop"].is_usable
    assert not found["gone"].is_usable
    assert "No such file" in found["gone"].text
    assert found["crm"].is_usable, found["crm"].text
    assert found["crm"].text == "offers crm_status"
