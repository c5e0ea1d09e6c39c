"""The model behind Flask."""

from __future__ import annotations

import time

from flask import Flask
from integration import served

app = Flask(__name__)


@app.get("/<int:number>")
def answer(number: int) -> str:
    """One row."""
    return served.answer(number)


@app.get("/slow/<int:number>")
def slowly(number: int) -> str:
    """One row, and an answer that takes its time."""
    said = served.answer(number)
    print("the answer takes its time", flush=True)
    time.sleep(1)
    return said
