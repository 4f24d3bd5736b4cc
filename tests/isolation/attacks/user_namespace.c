/* Become root in a namespace of its own, where the kernel's less trodden paths begin. */
#include "module.h"
#include <sched.h>
#include <sys/wait.h>

static const char *attack(void) {
    int said;
    pid_t pid = fork();
    if (pid == 0) _exit(unshare(CLONE_NEWUSER) ? errno : 0);
    waitpid(pid, &said, 0);
    errno = WEXITSTATUS(said);
    return WIFEXITED(said) && !WEXITSTATUS(said) ? "root" : NULL;
}
