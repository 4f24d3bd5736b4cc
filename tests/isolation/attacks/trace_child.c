/* Trace a child: a traced process can be made to do what its tracer may not do. */
#include "module.h"
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

static const char *attack(void) {
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    long got = ptrace(PTRACE_SEIZE, pid, 0, 0);
    int why = errno;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, __WALL);
    errno = why;
    return got ? NULL : "seized";
}
