#include "http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LARGEST_HEAD = 8192, LARGEST_BODY = 1 << 20 };

static int write_all(int fd, const void *data, size_t length)
{
    for (const char *at = data; length > 0;) {
        ssize_t n = write(fd, at, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        at += n;
        length -= (size_t)n;
    }
    return 0;
}

static void answer(int fd, const char *status, const void *body, size_t length)
{
    char head[256];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", status, length);
    if (write_all(fd, head, (size_t)n) == 0)
        write_all(fd, body, length);
}

static void answer_text(int fd, const char *status, const char *text)
{
    answer(fd, status, text, strlen(text));
}

/* Reads up to the empty line; returns how many bytes are there, with the end of the head in *end. */
static size_t read_head(int fd, char *head, size_t size, char **end)
{
    size_t have = 0;
    while (have + 1 < size) {
        ssize_t n = read(fd, head + have, size - 1 - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        have += (size_t)n;
        head[have] = '\0';
        if ((*end = strstr(head, "\r\n\r\n")))
            return have;
    }
    return 0;
}

static long content_length(const char *head)
{
    const char *line = strcasestr(head, "\r\ncontent-length:");
    return line ? strtol(line + strlen("\r\ncontent-length:"), NULL, 10) : 0;
}

static void put(int fd, struct store *store, const char *key, const char *head, const char *start, size_t have)
{
    long length = content_length(head);
    if (length < 0 || length > LARGEST_BODY) {
        answer_text(fd, "413 Content Too Large", "too large\n");
        return;
    }
    char *body = malloc((size_t)length + 1);
    if (!body) {
        answer_text(fd, "503 Service Unavailable", "no memory\n");
        return;
    }
    if (have > (size_t)length)
        have = (size_t)length;
    memcpy(body, start, have);
    while (have < (size_t)length) {
        ssize_t n = read(fd, body + have, (size_t)length - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    if (have < (size_t)length)
        answer_text(fd, "400 Bad Request", "short body\n");
    else if (store_put(store, key, body, have) != 0)
        answer_text(fd, "503 Service Unavailable", "no memory\n");
    else
        answer_text(fd, "200 OK", "stored\n");
    free(body);
}

static void serve(int fd, struct store *store, const char *version)
{
    char head[LARGEST_HEAD], method[8], path[1024], *end = NULL;
    size_t have = read_head(fd, head, sizeof head, &end);
    if (have == 0 || sscanf(head, "%7s %1023s", method, path) != 2) {
        answer_text(fd, "400 Bad Request", "bad request\n");
        return;
    }
    if (strcmp(path, "/health") == 0) {
        char text[128];
        snprintf(text, sizeof text, "ok %s %zu\n", version, store_count(store));
        answer_text(fd, "200 OK", text);
        return;
    }
    if (strncmp(path, "/keys/", 6) != 0 || path[6] == '\0') {
        answer_text(fd, "404 Not Found", "no such page\n");
        return;
    }
    const char *key = path + 6;
    if (strcmp(method, "PUT") == 0) {
        *end = '\0';
        put(fd, store, key, head, end + 4, have - (size_t)(end + 4 - head));
    } else if (strcmp(method, "GET") == 0) {
        size_t length = 0;
        const void *value = store_get(store, key, &length);
        if (value)
            answer(fd, "200 OK", value, length);
        else
            answer_text(fd, "404 Not Found", "no such key\n");
    } else if (strcmp(method, "DELETE") == 0) {
        answer_text(fd, store_delete(store, key) ? "200 OK" : "404 Not Found", "deleted\n");
    } else {
        answer_text(fd, "405 Method Not Allowed", "GET, PUT or DELETE\n");
    }
}

void http_serve(int connection, struct store *store, const char *version)
{
    serve(connection, store, version);
    close(connection);
}
