/* Read the packets of a network device. */
#include "module.h"
#include <arpa/inet.h>
#include <sys/socket.h>

static const char *attack(void) {
    int fd = socket(AF_PACKET, SOCK_RAW, htons(3));
    if (fd < 0) return NULL;
    close(fd);
    return "a socket";
}
