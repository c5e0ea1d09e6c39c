"""The model behind FastAPI."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from integration import served

app = FastAPI()


@app.get("/{number}", response_class=PlainTextResponse)
def answer(number: int) -> str:
    """One row."""
    return served.answer(number)
