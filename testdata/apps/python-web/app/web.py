"""A small guest book over HTTP."""

import platform

from flask import Flask, jsonify, render_template, request

app = Flask(__name__)
entries = []


@app.get("/health")
def health():
    return jsonify(status="ok", python=platform.python_version(), entries=len(entries))


@app.get("/")
def index():
    return render_template("index.html", entries=entries)


@app.post("/entries")
def add():
    text = (request.get_json(silent=True) or {}).get("text", "").strip()
    if not text:
        return jsonify(error="text is missing"), 400
    entries.append(text)
    return jsonify(entries=len(entries)), 201
