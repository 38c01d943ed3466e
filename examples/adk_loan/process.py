"""Processes a loan application with agents of Google ADK.

    python examples/adk_loan/process.py A-17    # kill it whenever you like …
    python examples/adk_loan/process.py A-17    # … and type the same line again

Needs `pip install 'holdfast[adk]'`. With GOOGLE_API_KEY in the environment Gemini decides, else a script does."""

import asyncio
import sys

from agent import app
from google.adk.runners import Runner
from google.genai import types

from holdfast.adapters.adk import HoldfastSessionService


async def main(app_id: str) -> None:
    # With "postgresql://…" another machine may be the one that goes on.
    async with HoldfastSessionService("adk_loan.db") as sessions:
        runner = Runner(app=app, session_service=sessions, auto_create_session=True)
        who = {"user_id": "u_123", "session_id": app_id}
        session = await sessions.get_session(app_name=app.name, **who)
        if session is None or "decision" not in session.state:
            # The same message again goes on with what it has begun; so does resume(runner, **who), without a message.
            message = types.Content(role="user", parts=[types.Part(text=f"Decide about {app_id}")])
            async for _ in runner.run_async(**who, new_message=message):
                pass  # an event has been stored before it comes here
            session = await sessions.get_session(app_name=app.name, **who)
        print(session.state["decision"])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:] or ["A-17"]))
