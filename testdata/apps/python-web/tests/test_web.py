import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "app"))
from web import app


class Web(unittest.TestCase):
    def setUp(self):
        self.client = app.test_client()

    def test_health(self):
        self.assertEqual(self.client.get("/health").json["status"], "ok")

    def test_entries_are_escaped(self):
        self.assertEqual(self.client.post("/entries", json={"text": "<b>"}).status_code, 201)
        self.assertIn("&lt;b&gt;", self.client.get("/").text)
        self.assertEqual(self.client.post("/entries", json={}).status_code, 400)


if __name__ == "__main__":
    unittest.main()
