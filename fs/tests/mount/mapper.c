/* What Rust does only in unsafe code: shared mappings, and locks of another process. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(const char *what) { perror(what); return 1; }

/* Writes through a shared mapping, and checks that read() and the mapping see each other. */
static int map(const char *path) {
    enum { SIZE = 3 << 20 };
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    if (fd < 0 || ftruncate(fd, SIZE)) return fail("open");
    char *shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) return fail("mmap");
    for (int at = 0; at < SIZE; at += 4096) memset(shared + at, 1 + at / 4096 % 250, 4096);
    char seen[4096];
    if (pread(fd, seen, sizeof seen, 1 << 20) != sizeof seen) return fail("pread");
    if (memcmp(seen, shared + (1 << 20), sizeof seen)) return puts("read misses the mapping"), 1;
    if (pwrite(fd, "written", 7, 2 << 20) != 7) return fail("pwrite");
    if (memcmp(shared + (2 << 20), "written", 7)) return puts("the mapping misses a write"), 1;
    close(fd); /* The mapping holds the file. */
    shared[SIZE - 1] = 'z';
    if (msync(shared, SIZE, MS_SYNC)) return fail("msync");
    shared[0] = 'a'; /* Written back by munmap and the last release. */
    return munmap(shared, SIZE) ? fail("munmap") : 0;
}

/* 0 if the byte is free to lock, 2 if another process holds it. */
static int lock(const char *path) {
    struct flock want = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1 };
    int fd = open(path, O_RDWR);
    if (fd < 0) return fail("open");
    if (!fcntl(fd, F_SETLK, &want)) return 0;
    return errno == EAGAIN || errno == EACCES ? 2 : fail("fcntl");
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "map")) return map(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "lock")) return lock(argv[2]);
    return 9;
}
