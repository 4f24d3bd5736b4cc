/* Choose the driver behind a terminal of its own: Linux loads one that is seldom used. */
#include "module.h"
#include <sys/ioctl.h>

static const char *attack(void) {
    int number = 0, terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal < 0) return NULL;
    int got = ioctl(terminal, TIOCSETD, &number), why = errno;
    close(terminal);
    errno = why;
    return got ? NULL : "a driver";
}
