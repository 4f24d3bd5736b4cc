/* Leave a set-id program on the host's disk. */
#include "module.h"
#include <sys/stat.h>

static const char *attack(void) {
    char path[4096];
    snprintf(path, sizeof path, "%s/planted", getenv("OPEN"));
    int fd = open(path, O_CREAT | O_WRONLY, 0755);
    if (fd < 0) return NULL;
    int failed = fchmod(fd, 04755), why = errno;
    close(fd);
    errno = why;
    return failed ? NULL : "planted";
}
