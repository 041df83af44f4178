import express from "express";

import { total } from "./orders.js";

const app = express();
app.use(express.json());
app.get("/health", (_request, response) => response.json({ status: "ok", node: process.version }));
app.post("/total", (request, response) => {
  try {
    response.json({ cents: total(request.body) });
  } catch (error) {
    response.status(400).json({ error: error.issues ?? String(error) });
  }
});

const server = app.listen(Number(process.env.PORT ?? 3000), () => console.log(`listening on ${server.address().port}`));
process.on("SIGTERM", () => server.close());
