/* Writes 200,000 bytes into a new file, makes them durable in one of the ways there are, says so and
 * waits to be killed. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BYTES 200000

static int fail(const char *what) {
    perror(what);
    return 1;
}

int main(int argc, char **argv) {
    static char bytes[BYTES];
    if (argc != 3) return 2;
    const char *way = argv[1];
    int flags = O_RDWR | O_CREAT | O_EXCL;
    if (!strcmp(way, "o_sync")) flags |= O_SYNC;
    if (!strcmp(way, "o_dsync")) flags |= O_DSYNC;
    int file = open(argv[2], flags, 0644);
    if (file < 0) return fail("open");
    memset(bytes, 'd', BYTES);
    if (!strcmp(way, "msync")) {
        if (ftruncate(file, BYTES) != 0) return fail("ftruncate");
        char *map = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (map == MAP_FAILED) return fail("mmap");
        memcpy(map, bytes, BYTES);
        if (msync(map, BYTES, MS_SYNC) != 0) return fail("msync");
        if (fsync(file) != 0) return fail("fsync");
    } else if (write(file, bytes, BYTES) != BYTES) {
        return fail("write");
    }
    if (!strcmp(way, "fsync") && fsync(file) != 0) return fail("fsync");
    if (!strcmp(way, "fdatasync") && fdatasync(file) != 0) return fail("fdatasync");
    puts("durable");
    fflush(stdout);
    /* Not closed: a close hands bytes over, and nothing here shall be owed to it. */
    pause();
    return 1;
}
