// What an open file can still do when its name is gone.
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

static void say(const char *what, long result) {
    printf("%s: %s\n", what, result < 0 ? strerror(errno) : "ok");
}

int main(void) {
    char buffer[5000], path[64];
    struct stat st;
    memset(buffer, 'x', sizeof buffer);
    int fd = open("file", O_CREAT | O_RDWR, 0644);
    if (fd < 0) err(1, "file");
    int other = open("file", O_RDONLY);
    say("write", pwrite(fd, buffer, sizeof buffer, 0));
    say("unlink", unlink("file"));
    say("fstat", fstat(fd, &st));
    printf("links %ld, size %ld\n", (long)st.st_nlink, (long)st.st_size);
    say("write more", pwrite(fd, buffer, sizeof buffer, 5000));
    printf("read through the other descriptor: %ld\n", (long)pread(other, buffer, sizeof buffer, 5000));
    say("truncate", ftruncate(fd, 100));
    say("chmod", fchmod(fd, 0600));
    say("utimes", futimens(fd, (struct timespec[]){{1, 2}, {3, 4}}));
    say("fsync", fsync(fd));
    fstat(fd, &st);
    printf("size %ld, mode %o, mtime %ld.%09ld\n", (long)st.st_size, st.st_mode, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    say("a new file of that name", open("file", O_CREAT | O_EXCL | O_WRONLY, 0644));
    fstat(fd, &st);
    printf("still the old one: links %ld, size %ld\n", (long)st.st_nlink, (long)st.st_size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDWR);
    say("open again by /proc", again);
    printf("read through it: %ld\n", (long)pread(again, buffer, sizeof buffer, 0));

    int victim = open("victim", O_CREAT | O_RDWR, 0644);
    say("write", write(victim, "victim", 6));
    say("rename over it", rename("file", "victim"));
    printf("read what was renamed over: %ld\n", (long)pread(victim, buffer, sizeof buffer, 0));
    fstat(victim, &st);
    printf("its links %ld\n", (long)st.st_nlink);

    say("link", link("victim", "second"));
    int second = open("second", O_RDWR);
    say("unlink the first name", unlink("victim"));
    fstat(second, &st);
    printf("links %ld\n", (long)st.st_nlink);
    say("open by the second", open("second", O_RDWR));
    return 0;
}
