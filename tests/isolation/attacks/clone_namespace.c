/* Become root in a user namespace by clone, as the C library starts a process. */
#include "module.h"
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

static const char *attack(void) {
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    if (pid < 0) return NULL;
    waitpid(pid, NULL, 0);
    return "root";
}
