/* A tool in C for WebAssembly: it counts the words of a text, or of a file in the folder that it was granted.
 *
 * JSON is read where it stands, in the line. The kernel writes no spaces between its tokens.
 */
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT "{\"type\":\"object\",\"required\":[\"text\"],\"properties\":{\"text\":{\"type\":\"string\"}}}"
#define PATH "{\"type\":\"object\",\"required\":[\"path\"],\"properties\":{\"path\":{\"type\":\"string\"}}}"
#define WORDS "{\"type\":\"object\",\"properties\":{\"words\":{\"type\":\"integer\"}}}"

static const char *past_string(const char *p)
{
    for (p++; *p && *p != '"'; p++)
        p += *p == '\\' && p[1];
    return *p ? p + 1 : p;
}

/* The end of a value: brackets are counted, and those in strings are none. */
static const char *past(const char *p)
{
    int depth = 0;
    do {
        if (*p == '"') {
            p = past_string(p);
        } else {
            depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
            p++;
        }
    } while (*p && (depth > 0 || !strchr(",}]:", *p)));
    return p;
}

/* A member of an object, or NULL. */
static const char *member(const char *object, const char *name)
{
    size_t length = strlen(name);
    for (const char *p = object && *object == '{' ? object + 1 : ""; *p == '"';) {
        const char *key = p + 1;
        p = past_string(p) + 1;
        if (!strncmp(key, name, length) && key[length] == '"')
            return p;
        p = past(p);
        p += *p == ',';
    }
    return NULL;
}

static bool is(const char *value, const char *expected)
{
    size_t length = strlen(expected);
    return value && *value == '"' && !strncmp(value + 1, expected, length) && value[length + 1] == '"';
}

static void answer(const char *id, const char *result)
{
    printf("{\"id\":%.*s,\"ok\":true,\"result\":%s}\n", (int)(past(id) - id), id, result);
}

static void fail(const char *id, const char *code, const char *message)
{
    const char *form = "{\"id\":%.*s,\"ok\":false,\"error\":{\"code\":\"%s\",\"message\":\"%s\"}}\n";
    printf(form, (int)(past(id) - id), id, code, message);
}

static void answer_words(const char *id, long words)
{
    char result[64];
    snprintf(result, sizeof result, "{\"words\":%ld}", words);
    answer(id, result);
}

/* The words of a string of JSON, of whose escapes \n, \r and \t are space. */
static long words_of(const char *p)
{
    const char *end = past_string(p) - 1;
    long words = 0;
    bool inside = false;
    for (p++; p < end; p++) {
        bool space = *p == ' ';
        if (*p == '\\')
            space = strchr("nrt", *++p) != NULL;
        words += !space && !inside;
        inside = !space;
    }
    return words;
}

static void count_file(const char *id, const char *value)
{
    char *path = strndup(value + 1, past_string(value) - value - 2);
    FILE *file = fopen(path, "r");
    free(path);
    if (!file) {
        fail(id, errno == ENOENT ? "bad_request" : "forbidden", strerror(errno));
        return;
    }
    long words = 0;
    bool inside = false;
    for (int c; (c = getc(file)) != EOF; inside = !isspace(c))
        words += !isspace(c) && !inside;
    fclose(file);
    answer_words(id, words);
}

static void invoke(const char *id, const char *params)
{
    const char *op = member(params, "op"), *args = member(params, "args");
    const char *text = member(args, "text"), *path = member(args, "path");
    if (is(op, "count") && text && *text == '"')
        answer_words(id, words_of(text));
    else if (is(op, "count"))
        fail(id, "bad_request", "args.text: expected a string");
    else if (is(op, "count_file") && path && *path == '"')
        count_file(id, path);
    else if (is(op, "count_file"))
        fail(id, "bad_request", "args.path: expected a string");
    else
        fail(id, "unsupported_op", "wordcount knows count and count_file");
}

int main(int argc, char **argv)
{
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        const char *id = member(line, "id"), *method = member(line, "method");
        if (!id) /* a cancel: each request is answered before the next line is read */
            continue;
        if (is(method, "health"))
            answer(id, "{\"status\":\"ok\"}");
        else if (is(method, "describe")) {
            printf("{\"id\":%.*s,\"ok\":true,\"result\":{\"name\":\"wordcount\",\"kind\":\"tool\",\"protocol\":1,"
                   "\"capabilities\":[\"fs:read:%s\"],\"inputs\":{\"count\":" TEXT ",\"count_file\":" PATH "},"
                   "\"outputs\":{\"count\":" WORDS ",\"count_file\":" WORDS "}}}\n",
                   (int)(past(id) - id), id, argc > 1 ? argv[1] : ".");
        } else
            invoke(id, member(line, "params"));
        fflush(stdout);
    }
}
