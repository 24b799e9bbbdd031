// Processes of one guest that take turns by flock and by fcntl, and that append without taking turns.
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESSES = 4, TURNS = 100, RECORD = 100 };

static void by_flock(int fd, int on) { if (flock(fd, on ? LOCK_EX : LOCK_UN)) err(1, "flock"); }

static void by_fcntl(int fd, int on) {
    struct flock lock = {.l_type = on ? F_WRLCK : F_UNLCK, .l_whence = SEEK_SET, .l_len = 100};
    if (fcntl(fd, F_SETLKW, &lock)) err(1, "fcntl");
}

static void in_children(void (*work)(int)) {
    for (int i = 0; i < PROCESSES; i++)
        if (fork() == 0) {
            work(i);
            _exit(0);
        }
    int status, bad = 0;
    while (wait(&status) > 0) bad += status != 0;
    printf("children that failed: %d\n", bad);
}

static void (*lock)(int, int);

static void count(int who) {
    (void)who;
    char text[16] = "";
    int fd = open("counter", O_CREAT | O_RDWR, 0644);
    for (int i = 0; i < TURNS; i++) {
        lock(fd, 1);
        memset(text, 0, sizeof text);
        if (pread(fd, text, sizeof text - 1, 0) < 0) err(1, "read");
        snprintf(text, sizeof text, "%d", atoi(text) + 1);
        if (pwrite(fd, text, strlen(text), 0) < 0) err(1, "write");
        lock(fd, 0);
    }
}

static void append(int who) {
    char record[RECORD];
    memset(record, 'a' + who, RECORD - 1);
    record[RECORD - 1] = '\n';
    int fd = open("log", O_CREAT | O_WRONLY | O_APPEND, 0644);
    for (int i = 0; i < TURNS; i++)
        if (write(fd, record, RECORD) != RECORD) err(1, "append");
}

static void show_counter(const char *how) {
    char text[16] = "";
    int fd = open("counter", O_RDONLY);
    if (read(fd, text, sizeof text - 1) < 0) err(1, "counter");
    printf("counted by %s: %s\n", how, text);
    unlink("counter");
}

int main(void) {
    lock = by_flock;
    in_children(count);
    show_counter("flock");
    lock = by_fcntl;
    in_children(count);
    show_counter("fcntl");
    in_children(append);

    int whole = 0, counts[PROCESSES] = {0};
    char record[RECORD + 1];
    FILE *log = fopen("log", "r");
    while (fread(record, RECORD, 1, log) == 1) {
        int who = record[0] - 'a', same = record[RECORD - 1] == '\n';
        for (int i = 1; i < RECORD - 1; i++) same &= record[i] == record[0];
        whole += same;
        if (who >= 0 && who < PROCESSES) counts[who]++;
    }
    printf("whole records: %d (%d %d %d %d)\n", whole, counts[0], counts[1], counts[2], counts[3]);
    return 0;
}
