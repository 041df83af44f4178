#ifndef STORE_H
#define STORE_H

#include <stddef.h>

/* Keys and values in memory: a hash table with chains. */
struct store;

struct store *store_new(void);
void store_free(struct store *store);

/* Sets a key; returns 0, or -1 without memory. The value is copied. */
int store_put(struct store *store, const char *key, const void *value, size_t length);
/* The value, or NULL; it is valid until the next change. */
const void *store_get(const struct store *store, const char *key, size_t *length);
/* Returns 1 if there was such a key. */
int store_delete(struct store *store, const char *key);
size_t store_count(const struct store *store);

#endif
