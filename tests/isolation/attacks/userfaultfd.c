/* Halt Linux in the middle of a system call. */
#include "module.h"
static const char *attack(void) {
    long fd = syscall(SYS_userfaultfd, O_CLOEXEC | 1);
    if (fd < 0) return NULL;
    close(fd);
    return "a handle";
}
