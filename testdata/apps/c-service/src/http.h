#ifndef HTTP_H
#define HTTP_H

#include "store.h"

/* Reads one request from a socket, answers it, and closes the socket. */
void http_serve(int connection, struct store *store, const char *version);

#endif
