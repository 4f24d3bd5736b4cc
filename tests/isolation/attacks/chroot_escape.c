/* Leave its root by making another one. */
#include "module.h"
#include <sys/stat.h>
#include <sys/wait.h>

static const char *attack(void) {
    int said;
    pid_t pid = fork();
    if (pid == 0) {
        if (chroot(".")) _exit(errno);
        _exit(0);
    }
    waitpid(pid, &said, 0);
    errno = WEXITSTATUS(said);
    return WEXITSTATUS(said) ? NULL : "another root";
}
