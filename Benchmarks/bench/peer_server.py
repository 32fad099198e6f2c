"""The smallest route in front of the official Agent SDK that streams. Arguments: port, the CLI's path. Run by peer.py, in a venv of its own."""

import json
import os
import sys

import uvicorn
from claude_agent_sdk import ClaudeAgentOptions, query
from claude_agent_sdk.types import StreamEvent
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

application = FastAPI()


@application.post("/")
async def answer(request: Request):
    body = await request.json()
    options = ClaudeAgentOptions(
        cli_path=sys.argv[2], system_prompt=body["system"], model="sonnet", tools=[], setting_sources=[], include_partial_messages=True,
        env=dict(os.environ))

    async def events():
        async for message in query(prompt=body["prompt"], options=options):
            if isinstance(message, StreamEvent) and message.event.get("delta", {}).get("text"):
                yield f"data: {json.dumps(message.event['delta']['text'])}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


uvicorn.run(application, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
