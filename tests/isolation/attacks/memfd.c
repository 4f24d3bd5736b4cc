/* Fill memory that belongs to no process, so that no limit counts it. */
#include "module.h"
#include <sys/mman.h>

static const char *attack(void) {
    static char block[1 << 20];
    int fd = memfd_create("x", 0);
    if (fd < 0) return NULL;
    long wrote = write(fd, block, sizeof block);
    close(fd);
    return wrote == sizeof block ? "1 MiB" : NULL;
}
