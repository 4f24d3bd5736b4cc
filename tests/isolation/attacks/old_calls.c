/* Make a 32-bit system call, which has another number. */
#include "module.h"
#include <signal.h>
#include <sys/wait.h>

static const char *attack(void) {
#if defined(__x86_64__)
    int said;
    pid_t pid = fork();
    if (pid == 0) {
        long got = 20; /* getpid */
        __asm__ volatile("int $0x80" : "+a"(got) : : "memory");
        _exit(got > 0 ? 0 : 1);
    }
    waitpid(pid, &said, 0);
    errno = WIFSIGNALED(said) ? EPERM : ENOSYS;
    return WIFEXITED(said) && !WEXITSTATUS(said) ? "a pid" : NULL;
#else
    errno = ENOSYS;
    return NULL;
#endif
}
