/* Files by their handles, as an NFS server keeps them.
 *
 *   handle of FILE            say the handle of a file
 *   handle read DIR HANDLE    open it on the mount of DIR, and write what the file holds
 *   handle list DIR HANDLE    say the names in the directory it leads to
 *   handle path DIR HANDLE    say where that directory is, which the kernel finds by its ".."
 *   handle gone DIR ROUNDS    remove files whose handles are known, and open these at once
 *
 * What the kernel refuses is said by the name of its error.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct handle {
    struct file_handle head;
    unsigned char bytes[MAX_HANDLE_SZ];
};

static void check(int ok)
{
    if (ok)
        return;
    fprintf(stderr, "%s\n", strerrorname_np(errno));
    exit(1);
}

static void take(const char *file, struct handle *handle)
{
    int mount;
    handle->head.handle_bytes = MAX_HANDLE_SZ;
    check(name_to_handle_at(AT_FDCWD, file, &handle->head, &mount, 0) == 0);
}

static void say(const struct handle *handle)
{
    printf("%d:", handle->head.handle_type);
    for (unsigned n = 0; n < handle->head.handle_bytes; n++)
        printf("%02x", handle->bytes[n]);
    printf("\n");
}

static void parse(const char *text, struct handle *handle)
{
    memset(handle, 0, sizeof *handle);
    handle->head.handle_type = atoi(text);
    const char *hex = strchr(text, ':') + 1;
    unsigned n = 0;
    for (; n < MAX_HANDLE_SZ && sscanf(hex, "%2hhx", &handle->bytes[n]) == 1; n++)
        hex += 2;
    handle->head.handle_bytes = n;
}

static void gone(const char *dir, int rounds)
{
    struct handle handle;
    struct stat before, after;
    int mount = open(dir, O_RDONLY | O_DIRECTORY);
    check(mount >= 0 && fchdir(mount) == 0);
    for (int n = 0; n < rounds; n++) {
        int file = open("gone", O_RDWR | O_CREAT | O_EXCL, 0644);
        check(file >= 0 && write(file, "gone", 4) == 4);
        take("gone", &handle);
        if (n % 2) {
            /* Whoever has it open keeps it, and so does its handle. */
            check(unlink("gone") == 0);
            int again = open_by_handle_at(mount, &handle.head, O_RDONLY);
            check(again >= 0 && fstat(file, &before) == 0 && fstat(again, &after) == 0);
            errno = EXDEV;
            check(before.st_ino == after.st_ino && after.st_nlink == 0);
            close(again);
            close(file);
        } else {
            close(file);
            check(unlink("gone") == 0);
        }
        int again = open_by_handle_at(mount, &handle.head, O_RDONLY);
        if (again >= 0 || errno != ESTALE) {
            fprintf(stderr, "round %d: %s\n", n, again < 0 ? strerrorname_np(errno) : "opened");
            exit(1);
        }
    }
}

int main(int argc, char **argv)
{
    struct handle handle;
    static char bytes[1 << 16];
    const char *what = argc > 1 ? argv[1] : "";
    if (argc == 3 && !strcmp(what, "of")) {
        take(argv[2], &handle);
        say(&handle);
        return 0;
    }
    if (argc != 4)
        return 2;
    if (!strcmp(what, "gone")) {
        gone(argv[2], atoi(argv[3]));
        return 0;
    }
    parse(argv[3], &handle);
    int mount = open(argv[2], O_RDONLY | O_DIRECTORY);
    check(mount >= 0);
    int fd = open_by_handle_at(mount, &handle.head, O_RDONLY);
    check(fd >= 0);
    if (!strcmp(what, "read")) {
        ssize_t len;
        while ((len = read(fd, bytes, sizeof bytes)) > 0)
            fwrite(bytes, 1, len, stdout);
        check(len == 0);
    } else if (!strcmp(what, "list")) {
        DIR *dir = fdopendir(fd);
        check(dir != NULL);
        for (struct dirent *entry; (entry = readdir(dir));)
            printf("%s\n", entry->d_name);
    } else if (!strcmp(what, "path")) {
        check(fchdir(fd) == 0 && getcwd(bytes, sizeof bytes) != NULL);
        printf("%s\n", bytes);
    } else {
        return 2;
    }
    return 0;
}
