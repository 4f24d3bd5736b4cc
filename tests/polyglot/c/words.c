/* Count words. One request at a time: while it waits, it looks at stdin for a cancel.
 *
 * JSON is read where it stands: a value is a pointer to its first character in the line. What the kernel sends is
 * JSON, so nothing is checked but what would make this program read beyond the line, which ends with a NUL.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Reading JSON */

static const char *space(const char *p) { return p + strspn(p, " \t\r\n"); }

static const char *past_string(const char *p)
{
    for (p++; *p && *p != '"'; p++)
        if (*p == '\\' && p[1])
            p++;
    return *p ? p + 1 : p;
}

/* The end of a value. Brackets are counted and not told apart: so it needs no recursion, however deep they nest. */
static const char *past(const char *p)
{
    int depth = 0;
    do {
        if (*p == '"')
            p = past_string(p);
        else if (strchr("{}[],: \t\r\n", *p))
            depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']'), p++;
        else
            p += strcspn(p, "{}[],: \t\r\n\"");
    } while (*p && depth > 0);
    return p;
}

static unsigned hex4(const char *p)
{
    char digits[5] = {0};
    strncpy(digits, p, 4);
    return strtoul(digits, NULL, 16);
}

static char *put_utf8(char *to, unsigned c)
{
    if (c < 0x80)
        return *to = c, to + 1;
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    *to++ = (0xF00 >> more) | (c >> 6 * more);
    while (more--)
        *to++ = 0x80 | ((c >> 6 * more) & 0x3F);
    return to;
}

/* A string, decoded to UTF-8. It may hold NULs: so it has a length. */
struct text {
    char *at;
    size_t length;
};

static struct text text_of(const char *p)
{
    static const char escapes[] = "b\bf\fn\nr\rt\t";
    const char *end = past_string(p) - 1;
    struct text text = {malloc(end - p + 1), 0};
    char *to = text.at;
    for (p++; p < end; p++) {
        if (*p != '\\') {
            *to++ = *p;
        } else if (*++p == 'u') {
            unsigned c = hex4(p + 1);
            p += 4;
            if (c >= 0xD800 && c < 0xDC00 && p[1] == '\\' && p[2] == 'u')
                c = 0x10000 + ((c - 0xD800) << 10) + (hex4(p + 3) - 0xDC00), p += 6;
            to = put_utf8(to, c);
        } else {
            const char *found = strchr(escapes, *p);
            *to++ = found ? found[1] : *p;
        }
    }
    text.length = to - text.at;
    return text;
}

static bool is(const char *value, const char *expected)
{
    if (!value || *value != '"')
        return false;
    struct text text = text_of(value);
    bool same = text.length == strlen(expected) && !memcmp(text.at, expected, text.length);
    free(text.at);
    return same;
}

/* A member of an object, or NULL if it is absent or null. */
static const char *member(const char *object, const char *name)
{
    if (!object || *object != '{')
        return NULL;
    for (const char *p = space(object + 1); *p == '"'; p = space(p + (*p == ','))) {
        const char *key = p;
        p = space(space(past_string(p)) + 1);
        if (is(key, name))
            return *p == 'n' ? NULL : p;
        p = space(past(p));
    }
    return NULL;
}

/* An element of an array, or NULL beyond its end. */
static const char *element(const char *array, long index)
{
    const char *p = space(array + 1);
    for (; *p && *p != ']' && index > 0; index--) {
        p = space(past(p));
        p = space(p + (*p == ','));
    }
    return *p == ']' ? NULL : p;
}

static long integer(const char *value) { return value ? strtol(value, NULL, 10) : 0; }

/* Writing it */

static const char *id; /* of the request that is being answered */

static void begin(void) { printf("{\"id\":%.*s", (int)(past(id) - id), id); }

static void end(void)
{
    puts("}");
    fflush(stdout);
}

static void put_value(const char *value) { fwrite(value, 1, past(value) - value, stdout); }

static void put_text(struct text text)
{
    putchar('"');
    for (size_t i = 0; i < text.length; i++) {
        unsigned char c = text.at[i];
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < ' ')
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void fail_with(const char *code, const char *message)
{
    begin();
    printf(",\"ok\":false,\"error\":{\"code\":\"%s\",\"message\":\"%s\"}", code, message);
    end();
}

/* The lines of stdin */

static char *input;
static size_t filled, room;

/* Read what is there, once. At the end of stdin the process ends. */
static void receive(void)
{
    if (room - filled < 65536)
        input = realloc(input, room = 2 * room + 65536);
    ssize_t got = read(0, input + filled, room - filled);
    if (got == 0)
        exit(0);
    if (got > 0)
        filled += got;
    else if (errno != EINTR)
        perror("stdin"), exit(1);
}

/* Take the first line out of the input: a copy, or NULL if there is none. */
static char *take_line(void)
{
    char *end = filled ? memchr(input, '\n', filled) : NULL;
    if (!end)
        return NULL;
    char *line = strndup(input, end - input);
    filled -= end + 1 - input;
    memmove(input, end + 1, filled);
    return line;
}

/* The operations: each gets its arguments and writes its reply. */

static bool divides(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static size_t characters(struct text text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.length; i++)
        count += (text.at[i] & 0xC0) != 0x80;
    return count;
}

/* Take the next word from a text. */
static bool next_word(struct text *text, struct text *word)
{
    while (text->length && divides(*text->at))
        text->at++, text->length--;
    *word = (struct text){text->at, 0};
    while (text->length && !divides(*text->at))
        text->at++, text->length--, word->length++;
    return word->length > 0;
}

static void count(const char *args)
{
    const char *value = member(args, "text");
    if (!value || *value != '"')
        return fail_with("bad_request", "args.text: expected a string");
    struct text text = text_of(value), rest = text, word, longest = {text.at, 0};
    int words = 0;
    for (; next_word(&rest, &word); words++)
        if (characters(word) > characters(longest))
            longest = word;
    begin();
    printf(",\"ok\":true,\"result\":{\"words\":%d,\"characters\":%zu,\"longest\":", words, characters(text));
    put_text(longest);
    putchar('}');
    end();
    free(text.at);
}

static void tell(const char *args)
{
    const char *value = member(args, "text");
    if (!value || *value != '"')
        return fail_with("bad_request", "args.text: expected a string");
    struct text text = text_of(value), rest = text, word;
    int words = 0;
    for (; next_word(&rest, &word); words++) {
        begin();
        printf(",\"chunk\":{\"word\":");
        put_text(word);
        putchar('}');
        end();
    }
    begin();
    printf(",\"ok\":true,\"result\":{\"words\":%d}", words);
    end();
    free(text.at);
}

static void report(const char *args, const char *resume)
{
    const char *tool = member(args, "tool"), *texts = member(args, "texts"), *state = member(resume, "state");
    if (!tool || *tool != '"')
        return fail_with("bad_request", "args.tool: expected a string");
    if (!texts || *texts != '[')
        return fail_with("bad_request", "args.texts: expected a list of strings");
    long asked = integer(member(state, "asked")), words = integer(member(state, "words"));
    if (resume) {
        const char *counted = element(member(resume, "results"), 0), *error = member(counted, "error");
        if (error) {
            begin();
            printf(",\"ok\":false,\"error\":{\"code\":\"report_failed\",\"message\":\"text %ld was not counted\","
                   "\"details\":{\"cause\":",
                   asked);
            put_value(error);
            printf("}}");
            return end();
        }
        words += integer(member(member(counted, "result"), "words"));
    }
    begin();
    const char *text = element(texts, asked);
    if (text) {
        printf(",\"pending\":{\"syscalls\":[{\"name\":\"invoke\",\"args\":{\"op\":\"count\",\"path\":");
        put_value(tool);
        printf(",\"args\":{\"text\":");
        put_value(text);
        printf("}}},{\"name\":\"emit\",\"args\":{\"event\":\"words:counted\",\"data\":{\"text\":%ld}}}],"
               "\"state\":{\"asked\":%ld,\"words\":%ld}}",
               asked + 1, asked + 1, words);
    } else {
        printf(",\"ok\":true,\"result\":{\"words\":%ld}", words);
    }
    end();
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* Whether one of the lines that were read is a cancel of the request that is being answered. They stay for later. */
static bool cancelled(void)
{
    bool yes = false;
    for (char *line = input, *end; !yes && (end = memchr(line, '\n', input + filled - line)); line = end + 1) {
        *end = 0;
        const char *request = space(line), *cancel = member(member(request, "params"), "id");
        yes = is(member(request, "method"), "cancel") && cancel && !strncmp(cancel, id, past(id) - id);
        *end = '\n';
    }
    return yes;
}

static void wait_for(const char *args)
{
    const char *seconds = member(args, "seconds");
    if (!seconds || !strchr("-0123456789", *seconds))
        return fail_with("bad_request", "args.seconds: expected a number");
    double left, until = now() + strtod(seconds, NULL);
    while ((left = until - now()) > 0) {
        if (cancelled())
            return fail_with("cancelled", "nobody waits any more");
        struct pollfd stdin_ = {.fd = 0, .events = POLLIN};
        if (poll(&stdin_, 1, fmin(ceil(left * 1000), 1e9)) > 0)
            receive();
    }
    begin();
    printf(",\"ok\":true,\"result\":{\"seconds\":");
    put_value(seconds);
    putchar('}');
    end();
}

static void fail(const char *args)
{
    const char *details = member(args, "details");
    if (!details || *details != '{')
        return fail_with("bad_request", "args.details: expected an object");
    begin();
    printf(",\"ok\":false,\"error\":{\"code\":\"out_of_ink\",\"message\":\"buy some\",\"details\":");
    put_value(details);
    putchar('}');
    end();
}

static void describe(void)
{
    FILE *file = fopen("../describe.json", "r");
    if (!file)
        perror("describe.json"), exit(1);
    begin();
    printf(",\"ok\":true,\"result\":");
    for (int c; (c = getc(file)) != EOF;)
        if (c != '\n') /* it would end the message */
            putchar(c);
    end();
    fclose(file);
}

static void answer(const char *request)
{
    const char *method = member(request, "method"), *params = member(request, "params");
    id = member(request, "id");
    if (!id) /* a cancel that comes too late */
        return;
    if (is(method, "health")) {
        begin();
        printf(",\"ok\":true,\"result\":{\"status\":\"ok\"}");
        return end();
    }
    if (is(method, "describe"))
        return describe();
    const char *op = member(params, "op"), *args = member(params, "args");
    if (is(op, "count"))
        count(args);
    else if (is(op, "report"))
        report(args, member(params, "resume"));
    else if (is(op, "tell"))
        tell(args);
    else if (is(op, "wait"))
        wait_for(args);
    else if (is(op, "fail"))
        fail(args);
    else
        fail_with("unsupported_op", "words does not know this operation");
}

int main(void)
{
    for (char *line;; free(line)) {
        while (!(line = take_line()))
            receive();
        answer(space(line));
    }
}
