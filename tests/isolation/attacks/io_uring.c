/* Make system calls that no filter sees. */
#include "module.h"
#include <linux/io_uring.h>

static const char *attack(void) {
    struct io_uring_params params = {0};
    long fd = syscall(SYS_io_uring_setup, 4, &params);
    if (fd < 0) return NULL;
    close(fd);
    return "a ring";
}
