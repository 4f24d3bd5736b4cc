/* Open a performance counter. */
#include "module.h"
#include <linux/perf_event.h>

static const char *attack(void) {
    struct perf_event_attr what = {.type = PERF_TYPE_SOFTWARE, .size = sizeof what, .config = PERF_COUNT_SW_CPU_CLOCK};
    what.exclude_kernel = 1;
    what.exclude_hv = 1;
    long fd = syscall(SYS_perf_event_open, &what, 0, -1, -1, 0);
    if (fd < 0) return NULL;
    close(fd);
    return "a counter";
}
