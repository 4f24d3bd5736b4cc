/* Make a message queue, whose memory belongs to no process. */
#include "module.h"
#include <mqueue.h>

static const char *attack(void) {
    mqd_t queue = mq_open("/amplifier-test-own", O_CREAT | O_RDWR, 0600, NULL);
    if (queue == (mqd_t)-1) return NULL;
    mq_close(queue);
    mq_unlink("/amplifier-test-own");
    return "a queue";
}
