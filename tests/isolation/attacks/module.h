/* The module around each attack in C: `attack` returns what it got, or NULL with errno. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *attack(void);

int main(void) {
    static char line[1 << 16];
    while (fgets(line, sizeof line, stdin)) {
        char *id = strstr(line, "\"id\":\"");
        if (!id) continue;
        id += 6;
        id[strcspn(id, "\"")] = 0;
        char *rest = id + strlen(id) + 1;
        if (strstr(rest, "\"method\":\"health\"")) {
            printf("{\"id\":\"%s\",\"ok\":true,\"result\":{\"status\":\"ok\"}}\n", id);
        } else if (strstr(rest, "\"method\":\"describe\"")) {
            printf("{\"id\":\"%s\",\"ok\":true,\"result\":%s}\n", id, getenv("DESCRIPTION"));
        } else {
            errno = 0;
            const char *got = attack();
            if (got)
                printf("{\"id\":\"%s\",\"ok\":true,\"result\":{\"got\":\"%s\"}}\n", id, got);
            else
                printf("{\"id\":\"%s\",\"ok\":true,\"result\":{\"stopped\":\"%s\"}}\n", id, strerror(errno));
        }
        fflush(stdout);
    }
    return 0;
}

static inline int target(const char *name) { return atoi(getenv(name)); }
