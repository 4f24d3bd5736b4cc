/* Read another process's memory. */
#include "module.h"
#include <sys/uio.h>

static char here[8];

static const char *attack(void) {
    unsigned long start;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/maps", target("VICTIM"));
    FILE *maps = fopen(path, "r");
    if (!maps) return NULL;
    if (fscanf(maps, "%lx", &start) != 1) start = 0;
    fclose(maps);
    struct iovec local = {here, sizeof here}, remote = {(void *)start, sizeof here};
    return process_vm_readv(target("VICTIM"), &local, 1, &remote, 1, 0) > 0 ? "read" : NULL;
}
