/* Trace another process. */
#include "module.h"
#include <sys/ptrace.h>
#include <sys/wait.h>

static const char *attack(void) {
    pid_t pid = target("VICTIM");
    if (ptrace(PTRACE_SEIZE, pid, 0, 0)) return NULL;
    ptrace(PTRACE_INTERRUPT, pid, 0, 0);
    waitpid(pid, NULL, __WALL);
    ptrace(PTRACE_DETACH, pid, 0, 0);
    return "seized";
}
