/* Make a file that has the set-id bit from the beginning. */
#include "module.h"
static const char *attack(void) {
    char path[4096];
    snprintf(path, sizeof path, "%s/born", getenv("OPEN"));
    int fd = open(path, O_CREAT | O_WRONLY, 04755);
    if (fd < 0) return NULL;
    close(fd);
    return "born";
}
