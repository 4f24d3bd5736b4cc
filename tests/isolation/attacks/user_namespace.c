/* Become root in a user namespace, from which seldom tested code of Linux can be reached. */
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
