/* Make timers, each of which takes one of the user's pending signals. */
#include "module.h"
#include <signal.h>
#include <time.h>

static const char *attack(void) {
    static timer_t made[4096];
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    int count = 0;
    while (count < 4096 && !timer_create(CLOCK_MONOTONIC, &event, &made[count])) count++;
    int why = errno, full = count == 4096;
    while (count) timer_delete(made[--count]);
    errno = why;
    return full ? "4096 timers" : NULL;
}
