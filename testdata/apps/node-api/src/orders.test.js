import assert from "node:assert/strict";
import { test } from "node:test";

import { total } from "./orders.js";

test("orders add up in cents", () => {
  assert.equal(total([{ item: "pen", quantity: 3, price: 1.1 }, { item: "ink", quantity: 1, price: 0.05 }]), 335);
});

test("what is no order is refused", () => {
  assert.throws(() => total([{ item: "pen", quantity: -1, price: 1 }]));
});
