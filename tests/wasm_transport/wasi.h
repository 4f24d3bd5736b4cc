/* WASI preview 1 without a C library: so a module compiles in a tenth of a second. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned u32;
typedef unsigned long long u64;
typedef __SIZE_TYPE__ size_t;

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))

struct bytes {
    const void *at;
    u32 size;
};

WASI(args_get) int args_get(char **, char *);
WASI(args_sizes_get) int args_sizes_get(u32 *, u32 *);
WASI(clock_time_get) int clock_time_get(u32, u64, u64 *);
WASI(environ_get) int environ_get(char **, char *);
WASI(environ_sizes_get) int environ_sizes_get(u32 *, u32 *);
WASI(fd_allocate) int fd_allocate(u32, u64, u64);
WASI(fd_close) int fd_close(u32);
WASI(fd_fdstat_set_flags) int fd_fdstat_set_flags(u32, u32);
WASI(fd_fdstat_set_rights) int fd_fdstat_set_rights(u32, u64, u64);
WASI(fd_filestat_set_size) int fd_filestat_set_size(u32, u64);
WASI(fd_filestat_set_times) int fd_filestat_set_times(u32, u64, u64, u32);
WASI(fd_prestat_dir_name) int fd_prestat_dir_name(u32, char *, u32);
WASI(fd_prestat_get) int fd_prestat_get(u32, u32 *);
WASI(fd_pwrite) int fd_pwrite(u32, const struct bytes *, u32, u64, u32 *);
WASI(fd_read) int fd_read(u32, const struct bytes *, u32, u32 *);
WASI(fd_readdir) int fd_readdir(u32, void *, u32, u64, u32 *);
WASI(fd_renumber) int fd_renumber(u32, u32);
WASI(fd_write) int fd_write(u32, const struct bytes *, u32, u32 *);
WASI(path_create_directory) int path_create_directory(u32, const char *, u32);
WASI(path_filestat_get) int path_filestat_get(u32, u32, const char *, u32, void *);
WASI(path_filestat_set_times) int path_filestat_set_times(u32, u32, const char *, u32, u64, u64, u32);
WASI(path_link) int path_link(u32, u32, const char *, u32, u32, const char *, u32);
WASI(path_open) int path_open(u32, u32, const char *, u32, u32, u64, u64, u32, u32 *);
WASI(path_readlink) int path_readlink(u32, const char *, u32, char *, u32, u32 *);
WASI(path_remove_directory) int path_remove_directory(u32, const char *, u32);
WASI(path_rename) int path_rename(u32, const char *, u32, u32, const char *, u32);
WASI(path_symlink) int path_symlink(const char *, u32, u32, const char *, u32);
WASI(path_unlink_file) int path_unlink_file(u32, const char *, u32);
WASI(poll_oneoff) int poll_oneoff(const void *, void *, u32, u32 *);
WASI(proc_exit) _Noreturn void proc_exit(u32);
WASI(proc_raise) int proc_raise(u32);
WASI(random_get) int random_get(void *, u32);
WASI(sock_accept) int sock_accept(u32, u32, u32 *);

void *memset(void *to, int byte, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((volatile char *)to)[i] = byte;
    return to;
}

void *memcpy(void *to, const void *from, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((volatile char *)to)[i] = ((const char *)from)[i];
    return to;
}

static u32 length(const char *text)
{
    u32 n = 0;
    while (text[n])
        n++;
    return n;
}

static int same(const char *at, const char *text)
{
    u32 n = length(text);
    for (u32 i = 0; i < n; i++)
        if (at[i] != text[i])
            return 0;
    return at[n] == '"';
}

/* Writing: into a buffer, and from there to stdout. */

static char out[65536];
static u32 filled;

static void send_to(u32 fd, const char *at, u32 size)
{
    while (size) {
        struct bytes part = {at, size};
        u32 sent = 0;
        if (fd_write(fd, &part, 1, &sent))
            proc_exit(74);
        at += sent, size -= sent;
    }
}

static void flush(void)
{
    send_to(1, out, filled);
    filled = 0;
}

static void put_bytes(const char *at, u32 size)
{
    while (size--) {
        if (filled == sizeof out)
            flush();
        out[filled++] = *at++;
    }
}

static void put(const char *text) { put_bytes(text, length(text)); }

static void put_number(u64 n)
{
    char digits[24], *p = digits + sizeof digits;
    do
        *--p = '0' + n % 10;
    while (n /= 10);
    put_bytes(p, digits + sizeof digits - p);
}

static void put_text(const char *at, u32 size)
{
    put("\"");
    for (u32 i = 0; i < size; i++) {
        static const char hex[] = "0123456789abcdef";
        u8 c = at[i];
        if (c < ' ' || c == '"' || c == '\\' || c > '~') {
            char escaped[] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
            put_bytes(escaped, 6);
        } else {
            put_bytes(at + i, 1);
        }
    }
    put("\"");
}

/* Reading JSON where it stands. The kernel sends no spaces between tokens, and no NUL. */

static const char *past_string(const char *p)
{
    for (p++; *p != '"'; p++)
        if (*p == '\\')
            p++;
    return p + 1;
}

static const char *past(const char *p)
{
    int depth = 0;
    do {
        if (*p == '"') {
            p = past_string(p);
            continue;
        }
        depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
        p++;
    } while (depth || (*p && *p != ',' && *p != '}' && *p != ']' && *p != ':'));
    return p;
}

/* A member of an object, or its first character if it has none of that name. */
static const char *member(const char *object, const char *name)
{
    const char *p = object + 1;
    while (*p == '"') {
        const char *key = p + 1, *value = past_string(p) + 1;
        if (same(key, name))
            return value;
        p = past(value);
        p += *p == ',';
    }
    return 0;
}

static u64 number(const char *object, const char *name)
{
    const char *p = member(object, name);
    u64 n = 0;
    if (p && *p == '-')
        return (u64)-1;
    for (; p && *p >= '0' && *p <= '9'; p++)
        n = 10 * n + *p - '0';
    return n;
}

/* A text of the arguments. They have no escapes. */
static struct bytes text(const char *object, const char *name)
{
    const char *p = member(object, name);
    struct bytes found = {p ? p + 1 : "", p ? past_string(p) - p - 2 : 0};
    return found;
}

static void put_value(const char *value) { put_bytes(value, past(value) - value); }

/* The lines of stdin: the next one, ended by a NUL in the place of its line end; 0 at the end of input. */

static char input[4 << 20];
static u32 begun, got;

static char *next_line(void)
{
    for (u32 at = begun;; at++) {
        if (at == got) {
            if (begun) {
                memcpy(input, input + begun, got - begun);
                at -= begun, got -= begun, begun = 0;
            }
            struct bytes room = {input + got, sizeof input - got};
            u32 more = 0;
            if (fd_read(0, &room, 1, &more) || !more)
                return 0;
            got += more;
        }
        if (input[at] == '\n') {
            char *line = input + begun;
            input[at] = 0;
            begun = at + 1;
            return line;
        }
    }
}

static const char *id; /* of the request that is being answered */

static void begin(const char *of)
{
    put("{\"id\":");
    put_value(of);
}

static void answer(const char *result)
{
    begin(id);
    put(",\"ok\":true,\"result\":");
    put(result);
    put("}\n");
    flush();
}
