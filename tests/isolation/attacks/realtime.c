/* Run before all other programs of the host. */
#include "module.h"
#include <sched.h>

static const char *attack(void) {
    struct sched_param first = {.sched_priority = 1}, none = {0};
    if (sched_setscheduler(0, SCHED_FIFO, &first)) return NULL;
    sched_setscheduler(0, SCHED_OTHER, &none);
    return "a processor";
}
