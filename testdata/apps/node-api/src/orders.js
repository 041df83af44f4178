import { z } from "zod";

const Order = z.object({
  item: z.string().min(1),
  quantity: z.number().int().positive(),
  price: z.number().nonnegative(),
});

/** The sum of orders, in cents; throws where one of them is not valid. */
export function total(orders) {
  return z.array(Order).parse(orders).reduce((sum, { quantity, price }) => sum + Math.round(quantity * price * 100), 0);
}
