#include "store.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    struct entry *next;
    char *key;
    void *value;
    size_t length;
};

struct store {
    struct entry **buckets;
    size_t size;
    size_t count;
};

static uint64_t hash(const char *key)
{
    uint64_t value = 1469598103934665603u; /* FNV-1a */
    for (; *key; key++)
        value = (value ^ (unsigned char)*key) * 1099511628211u;
    return value;
}

static struct entry **find(const struct store *store, const char *key)
{
    struct entry **place = &store->buckets[hash(key) % store->size];
    while (*place && strcmp((*place)->key, key) != 0)
        place = &(*place)->next;
    return place;
}

static void entry_free(struct entry *entry)
{
    free(entry->key);
    free(entry->value);
    free(entry);
}

struct store *store_new(void)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return NULL;
    store->size = 64;
    store->buckets = calloc(store->size, sizeof *store->buckets);
    if (!store->buckets) {
        free(store);
        return NULL;
    }
    return store;
}

void store_free(struct store *store)
{
    for (size_t i = 0; i < store->size; i++) {
        for (struct entry *next, *entry = store->buckets[i]; entry; entry = next) {
            next = entry->next;
            entry_free(entry);
        }
    }
    free(store->buckets);
    free(store);
}

static void grow(struct store *store)
{
    size_t size = store->size * 2;
    struct entry **buckets = calloc(size, sizeof *buckets);
    if (!buckets)
        return; /* longer chains, and still right */
    for (size_t i = 0; i < store->size; i++) {
        for (struct entry *next, *entry = store->buckets[i]; entry; entry = next) {
            next = entry->next;
            entry->next = buckets[hash(entry->key) % size];
            buckets[hash(entry->key) % size] = entry;
        }
    }
    free(store->buckets);
    store->buckets = buckets;
    store->size = size;
}

int store_put(struct store *store, const char *key, const void *value, size_t length)
{
    void *copy = malloc(length ? length : 1);
    if (!copy)
        return -1;
    memcpy(copy, value, length);
    struct entry **place = find(store, key);
    if (*place) {
        free((*place)->value);
    } else {
        struct entry *entry = calloc(1, sizeof *entry);
        if (!entry || !(entry->key = strdup(key))) {
            free(entry);
            free(copy);
            return -1;
        }
        *place = entry;
        store->count++;
    }
    (*place)->value = copy;
    (*place)->length = length;
    if (store->count > store->size * 2)
        grow(store);
    return 0;
}

const void *store_get(const struct store *store, const char *key, size_t *length)
{
    struct entry *entry = *find(store, key);
    if (!entry)
        return NULL;
    *length = entry->length;
    return entry->value;
}

int store_delete(struct store *store, const char *key)
{
    struct entry **place = find(store, key);
    struct entry *entry = *place;
    if (!entry)
        return 0;
    *place = entry->next;
    entry_free(entry);
    store->count--;
    return 1;
}

size_t store_count(const struct store *store)
{
    return store->count;
}
