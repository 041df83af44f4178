#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what)                                                          \
    do {                                                                     \
        if (!(what)) {                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);       \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

int main(void)
{
    struct store *store = store_new();
    char key[32];
    size_t length;
    CHECK(store);
    for (int i = 0; i < 10000; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        CHECK(store_put(store, key, key, strlen(key)) == 0);
    }
    CHECK(store_count(store) == 10000);
    for (int i = 0; i < 10000; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        const char *value = store_get(store, key, &length);
        CHECK(value && length == strlen(key) && memcmp(value, key, length) == 0);
    }
    CHECK(store_put(store, "key-1", "", 0) == 0 && store_get(store, "key-1", &length) && length == 0);
    CHECK(store_delete(store, "key-1") == 1 && store_delete(store, "key-1") == 0);
    CHECK(!store_get(store, "key-1", &length) && store_count(store) == 9999);
    store_free(store);
    puts("store: ok");
    return 0;
}
