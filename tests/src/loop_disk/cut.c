/* Cuts a filesystem off from its disk as a loss of power would: what its log did not write yet is
 * lost. EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are one ioctl with the same flags. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define GOING_DOWN _IOR('X', 125, uint32_t)
#define NO_LOG_FLUSH 2

int main(int argc, char **argv) {
    uint32_t how = NO_LOG_FLUSH;
    int dir = argc == 2 ? open(argv[1], O_RDONLY | O_DIRECTORY) : -1;
    if (dir < 0 || ioctl(dir, GOING_DOWN, &how) != 0) {
        perror("cut");
        return 1;
    }
    return 0;
}
