// Two processes write one file through shared mappings, a third through write(); all see one file.
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 256, PAGE = 4096, SIZE = PAGES * PAGE, TURNS = 2000 };

static volatile int *map_it(int fd) {
    void *at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) err(1, "mmap");
    return at;
}

int main(void) {
    int fd = open("mapped", O_CREAT | O_RDWR, 0644);
    if (fd < 0 || ftruncate(fd, SIZE)) err(1, "mapped");
    int child = fork();
    volatile int *words = map_it(open("mapped", O_RDWR));
    // The turn stands in the first word: even for the parent, odd for the child. Each leaves a mark in a page of its turn.
    for (int turn = child ? 0 : 1; turn < TURNS; turn += 2) {
        while (__atomic_load_n(words, __ATOMIC_ACQUIRE) != turn) usleep(0);
        words[(turn % PAGES) * (PAGE / 4) + 1 + turn / PAGES] = turn * 7 + 1;
        __atomic_store_n(words, turn + 1, __ATOMIC_RELEASE);
    }
    if (!child) _exit(0);
    int status;
    waitpid(child, &status, 0);
    printf("child: %d, turns: %d\n", status, words[0]);

    int wrong = 0, value;
    for (int turn = 0; turn < TURNS; turn++) {
        off_t at = (off_t)(turn % PAGES) * PAGE + 4 * (1 + turn / PAGES);
        if (pread(fd, &value, sizeof value, at) != sizeof value || value != turn * 7 + 1) wrong++;
    }
    printf("wrong by read: %d\n", wrong);
    value = 4711;
    if (pwrite(fd, &value, sizeof value, SIZE - 4) != sizeof value) err(1, "pwrite");
    printf("written, seen in the mapping: %d\n", words[SIZE / 4 - 1]);
    if (msync((void *)words, SIZE, MS_SYNC)) err(1, "msync");
    fflush(stdout);
    // A file's bytes on the host, the word of the turn first.
    return system("host 'cd shared_mapping && md5sum mapped'");
}
