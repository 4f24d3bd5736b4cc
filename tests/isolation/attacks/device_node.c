/* Make a device node in a granted folder, and open it. */
#include "module.h"
#include <sys/stat.h>
#include <sys/sysmacros.h>

static const char *attack(void) {
    char path[4096];
    snprintf(path, sizeof path, "%s/device", getenv("OPEN"));
    if (mknod(path, S_IFCHR | 0600, makedev(1, 3))) return NULL;
    int fd = open(path, O_RDONLY);
    if (fd < 0) return NULL;
    close(fd);
    return "a device";
}
