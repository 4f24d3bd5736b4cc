/* Type into the terminal that the kernel was started from. */
#include "module.h"
#include <sys/ioctl.h>

static const char *attack(void) {
    int fd = open(getenv("TERMINAL"), O_RDWR);
    if (fd < 0) return NULL;
    int failed = ioctl(fd, TIOCSTI, "x"), why = errno;
    close(fd);
    errno = why;
    return failed ? NULL : "typed";
}
