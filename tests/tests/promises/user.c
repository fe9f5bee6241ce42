/* What programs do to files and no shell can: one of these per run, which ends at its first error.
 *
 *   user mapped FILE BYTE LEN     write through a mapping, msync, fsync
 *   user append FILE TAG LINES    append lines, each by one write
 *   user rename DIR TAG ROUNDS    rename a dirty file over another, over and over; write on
 *   user save FILE ROUNDS         save as editors do: write a temporary, fsync, rename; say the round
 *   user truncate FILE ROUNDS     shorten and lengthen a mapped file that is read
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void check(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void put(int fd, const void *bytes, size_t len)
{
    check(write(fd, bytes, len) == (ssize_t)len, "write");
}

static void mapped(const char *file, int byte, size_t len)
{
    int fd = open(file, O_RDWR | O_CREAT, 0644);
    check(fd >= 0, "open");
    check(ftruncate(fd, len) == 0, "ftruncate");
    char *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(map != MAP_FAILED, "mmap");
    memset(map, byte, len);
    check(msync(map, len, MS_SYNC) == 0, "msync");
    check(fsync(fd) == 0, "fsync");
}

static void append(const char *file, const char *tag, int lines)
{
    char line[64];
    int fd = open(file, O_WRONLY | O_CREAT | O_APPEND, 0644);
    check(fd >= 0, "open");
    for (int n = 0; n < lines; n++) {
        int len = snprintf(line, sizeof line, "%s %06d %.*s\n", tag, n, n % 40,
                           "........................................");
        put(fd, line, len);
    }
}

static void renames(const char *dir, const char *tag, int rounds)
{
    static char bytes[300000];
    char temporary[4096], name[4096];
    memset(bytes, tag[0], sizeof bytes);
    snprintf(temporary, sizeof temporary, "%s/%s.new", dir, tag);
    for (int n = 0; n < rounds; n++) {
        int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        check(fd >= 0, "open");
        put(fd, bytes, sizeof bytes);
        snprintf(name, sizeof name, "%s/name-%d", dir, n % 3);
        check(rename(temporary, name) == 0, "rename");
        put(fd, "more", 4);
        check(close(fd) == 0, "close");
    }
}

static void save(const char *file, int rounds)
{
    static char bytes[70000];
    char temporary[4096];
    snprintf(temporary, sizeof temporary, "%s.tmp", file);
    for (int n = 1; n <= rounds; n++) {
        memset(bytes, 'a' + n % 26, sizeof bytes);
        snprintf(bytes, 32, "%08d\n", n);
        int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        check(fd >= 0, "open");
        put(fd, bytes, sizeof bytes);
        check(fsync(fd) == 0, "fsync");
        check(close(fd) == 0, "close");
        check(rename(temporary, file) == 0, "rename");
        fd = open(file, O_RDONLY);
        check(fd >= 0 && fsync(fd) == 0, "fsync of the new name");
        close(fd);
        printf("%d\n", n);
        fflush(stdout);
    }
}

static void truncates(const char *file, int rounds)
{
    static char bytes[200000];
    int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0644);
    check(fd >= 0, "open");
    for (int n = 0; n < rounds; n++) {
        size_t len = 1 + (n * 7919) % sizeof bytes;
        memset(bytes, 'x', sizeof bytes);
        check(pwrite(fd, bytes, sizeof bytes, 0) == sizeof bytes, "pwrite");
        check(ftruncate(fd, len) == 0, "ftruncate");
        check(ftruncate(fd, sizeof bytes) == 0, "ftruncate");
        check(pread(fd, bytes, sizeof bytes, 0) == sizeof bytes, "pread");
        for (size_t at = 0; at < sizeof bytes; at++) {
            if (bytes[at] != (at < len ? 'x' : 0)) {
                fprintf(stderr, "byte %zu of a file cut at %zu is %d\n", at, len, bytes[at]);
                exit(2);
            }
        }
    }
}

int main(int count, char **words)
{
    if (count == 5 && !strcmp(words[1], "mapped"))
        mapped(words[2], atoi(words[3]), strtoul(words[4], NULL, 10));
    else if (count == 5 && !strcmp(words[1], "append"))
        append(words[2], words[3], atoi(words[4]));
    else if (count == 5 && !strcmp(words[1], "rename"))
        renames(words[2], words[3], atoi(words[4]));
    else if (count == 4 && !strcmp(words[1], "save"))
        save(words[2], atoi(words[3]));
    else if (count == 4 && !strcmp(words[1], "truncate"))
        truncates(words[2], atoi(words[3]));
    else
        return 64;
    return 0;
}
