/* Take a part of fs.aio-max-nr, a number that all users of the host share. */
#include "module.h"

static const char *attack(void) {
    unsigned long context = 0;
    if (syscall(SYS_io_setup, 64, &context)) return NULL;
    syscall(SYS_io_destroy, context);
    return "64 requests";
}
