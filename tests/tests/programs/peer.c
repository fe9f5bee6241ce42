/* The other process of a test, and what Rust does only in unsafe code. It is told what to do in
 * lines on standard input, and answers each with one line:
 *   peer lock flock|posix|ofd PATH    take, share, wait, free -> got, busy
 *   peer map SIZE PATH                get AT, set AT VALUE, sync, drop -> a number, ok
 *   peer exclusive COUNT DIR          go -> how many of the names it made
 *   peer append WORD COUNT PATH       go -> done
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

static char line[256];

static int told(void) { return fgets(line, sizeof line, stdin) != NULL; }
static int is(const char *word) { return !strncmp(line, word, strlen(word)); }

static void say(const char *word) {
    puts(word);
    fflush(stdout);
}

static int fail(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    return 1;
}

static int apply(const char *kind, int fd, int type, int wait) {
    if (!strcmp(kind, "flock")) {
        int op = type == F_UNLCK ? LOCK_UN : type == F_RDLCK ? LOCK_SH : LOCK_EX;
        return flock(fd, op | (wait ? 0 : LOCK_NB));
    }
    struct flock want = { .l_type = type, .l_whence = SEEK_SET, .l_start = 20, .l_len = 10 };
    int open_file = !strcmp(kind, "ofd");
    if (wait) return fcntl(fd, open_file ? F_OFD_SETLKW : F_SETLKW, &want);
    return fcntl(fd, open_file ? F_OFD_SETLK : F_SETLK, &want);
}

static int lock(const char *kind, const char *path) {
    int fd = open(path, O_RDWR);
    if (fd < 0) return fail("open");
    while (told()) {
        int type = is("free") ? F_UNLCK : is("share") ? F_RDLCK : F_WRLCK;
        if (!apply(kind, fd, type, is("wait"))) say("got");
        else if (errno == EAGAIN || errno == EACCES) say("busy");
        else fail("lock"), fflush(stdout);
    }
    return 0;
}

static int map(size_t size, const char *path) {
    int fd = open(path, O_RDWR);
    if (fd < 0) return fail("open");
    unsigned char *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) return fail("mmap");
    close(fd); /* The mapping holds the file. */
    while (told()) {
        unsigned long at = 0, value = 0;
        sscanf(line, "%*s %lu %lu", &at, &value);
        if (is("set")) shared[at] = value, say("ok");
        else if (is("get")) printf("%d\n", shared[at]), fflush(stdout);
        else if (is("sync")) say(msync(shared, size, MS_SYNC) ? "failed" : "ok");
        else if (is("drop")) say(munmap(shared, size) ? "failed" : "ok");
    }
    return 0;
}

static int exclusive(int count, const char *dir) {
    int made = 0;
    if (chdir(dir)) return fail("chdir");
    told();
    for (int i = 0; i < count; i++) {
        char name[32];
        sprintf(name, "%d", i);
        int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd < 0 && errno != EEXIST) return fail("open");
        if (fd >= 0) close(fd), made++;
    }
    printf("%d\n", made);
    return 0;
}

static int append(const char *word, int count, const char *path) {
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (fd < 0) return fail("open");
    told();
    for (int i = 0; i < count; i++) {
        char text[128];
        int len = sprintf(text, "%s %06d %s\n", word, i, "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy");
        if (write(fd, text, len) != len) return fail("write");
    }
    say("done");
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "lock")) return lock(argv[2], argv[3]);
    if (argc == 4 && !strcmp(argv[1], "map")) return map(strtoul(argv[2], NULL, 10), argv[3]);
    if (argc == 4 && !strcmp(argv[1], "exclusive")) return exclusive(atoi(argv[2]), argv[3]);
    if (argc == 5 && !strcmp(argv[1], "append")) return append(argv[2], atoi(argv[3]), argv[4]);
    return 9;
}
