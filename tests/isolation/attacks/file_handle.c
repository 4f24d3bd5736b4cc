/* Open a file by its handle, without a path. */
#include "module.h"
static const char *attack(void) {
    union {
        struct file_handle handle;
        char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } it = {.handle.handle_bytes = MAX_HANDLE_SZ};
    int mount_id, at = open("/", O_RDONLY | O_DIRECTORY);
    if (name_to_handle_at(AT_FDCWD, getenv("SECRET"), &it.handle, &mount_id, 0) &&
        name_to_handle_at(AT_FDCWD, "/usr", &it.handle, &mount_id, 0))
        return NULL;
    int fd = open_by_handle_at(at, &it.handle, O_RDONLY), why = errno;
    close(at);
    errno = why;
    if (fd < 0) return NULL;
    close(fd);
    return "open";
}
