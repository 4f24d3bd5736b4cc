/* Ask the kernel for the host's network devices. */
#include "module.h"
#include <linux/netlink.h>
#include <sys/socket.h>

static const char *attack(void) {
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    if (fd < 0) return NULL;
    close(fd);
    return "a socket";
}
