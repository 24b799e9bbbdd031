// Holes, ranges given back and zeroed, copies made by the kernel, exchanged names, files without a name's old content.
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 65536 };
static char block[BLOCK];

static void say(const char *what, long result) {
    if (result < 0) printf("%s: %s\n", what, strerror(errno));
    else printf("%s: %ld\n", what, result);
}

static unsigned sum(int fd) {
    unsigned total = 1, length = 0;
    unsigned char byte[4096];
    long got;
    for (off_t at = 0; (got = pread(fd, byte, sizeof byte, at)) > 0; at += got) {
        for (int i = 0; i < got; i++) total = total * 31 + byte[i];
        length += got;
    }
    return total ^ length;
}

int main(void) {
    memset(block, 'd', sizeof block);
    int fd = open("sparse", O_CREAT | O_RDWR, 0644);
    if (fd < 0) err(1, "sparse");
    say("write at 1M", pwrite(fd, block, BLOCK, 1 << 20));
    say("write at 4M", pwrite(fd, block, BLOCK, 4 << 20));
    fsync(fd);
    say("first data", lseek(fd, 0, SEEK_DATA));
    say("hole after it", lseek(fd, 1 << 20, SEEK_HOLE));
    say("next data", lseek(fd, (1 << 20) + BLOCK, SEEK_DATA));
    say("data after the end", lseek(fd, 5 << 20, SEEK_DATA));
    say("grow", ftruncate(fd, 8 << 20));
    say("hole at the end", lseek(fd, (4 << 20) + BLOCK, SEEK_HOLE));
    say("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, BLOCK));
    fsync(fd);
    say("first data", lseek(fd, 0, SEEK_DATA));
    say("allocate beyond the end", fallocate(fd, FALLOC_FL_KEEP_SIZE, 8 << 20, BLOCK));
    say("allocate", fallocate(fd, 0, 0, BLOCK));
    struct stat st;
    fstat(fd, &st);
    printf("size %ld, sum %08x\n", (long)st.st_size, sum(fd));

    int copy = open("copy", O_CREAT | O_RDWR, 0644);
    loff_t from = 4 << 20, to = 12345;
    say("copy_file_range", copy_file_range(fd, &from, copy, &to, 30000, 0));
    off_t at = (4 << 20) + 50;
    say("sendfile", sendfile(copy, fd, &at, 20000));
    fstat(copy, &st);
    printf("copy: size %ld\n", (long)st.st_size);
    say("append by O_APPEND", write(open("copy", O_WRONLY | O_APPEND), "end", 3));
    fstat(copy, &st);
    printf("copy: size %ld\n", (long)st.st_size);

    say("rename, nothing may be there", renameat2(AT_FDCWD, "copy", AT_FDCWD, "sparse", RENAME_NOREPLACE));
    say("exchange", renameat2(AT_FDCWD, "copy", AT_FDCWD, "sparse", RENAME_EXCHANGE));
    stat("copy", &st);
    printf("exchanged: size of copy %ld\n", (long)st.st_size);
    say("truncate by name", truncate("copy", 10));
    stat("copy", &st);
    printf("size %ld\n", (long)st.st_size);
    return 0;
}
