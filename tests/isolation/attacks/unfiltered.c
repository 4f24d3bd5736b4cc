/* Write to the memory of a process that has no filter, to run other code in it. */
#include "module.h"
#include <ctype.h>
#include <dirent.h>

static int free_of_filters(const char *pid) {
    char path[300], line[256];
    int seccomp = 1;
    snprintf(path, sizeof path, "/proc/%s/status", pid);
    FILE *status = fopen(path, "r");
    if (!status) return 0;
    while (fgets(line, sizeof line, status)) sscanf(line, "Seccomp: %d", &seccomp);
    fclose(status);
    return seccomp == 0;
}

static const char *attack(void) {
    DIR *all = opendir("/proc");
    struct dirent *one;
    const char *got = NULL;
    while (all && !got && (one = readdir(all))) {
        if (!isdigit(one->d_name[0]) || !free_of_filters(one->d_name)) continue;
        char path[300];
        snprintf(path, sizeof path, "/proc/%s/mem", one->d_name);
        int fd = open(path, O_RDWR);
        if (fd >= 0) {
            close(fd);
            got = "open";
        }
    }
    closedir(all);
    if (!got && !errno) errno = ESRCH;
    return got;
}
