// libc's directory streams while the directory changes: 3,000 files in the largest, or FILES. Prints what was seen; the
// bare directory says what is right.
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILES = 3000, CHANGES = 700 };
static int seen[2 * FILES], files = FILES;

static void make(const char *dir, const char *kind, int number) {
    char path[64];
    snprintf(path, sizeof path, "%s/%s%d", dir, kind, number);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
    if (fd < 0) err(1, "%s", path);
    close(fd);
}

static void drop(const char *dir, const char *kind, int number) {
    char path[64];
    snprintf(path, sizeof path, "%s/%s%d", dir, kind, number);
    if (unlink(path)) err(1, "%s", path);
}

static void fill(const char *dir, int count) {
    if (mkdir(dir, 0755)) err(1, "%s", dir);
    for (int i = 0; i < count; i++) make(dir, "stay", i);
}

static DIR *open_stream(const char *dir) {
    DIR *stream = opendir(dir);
    if (!stream) err(1, "%s", dir);
    return stream;
}

// Reads at most `limit` entries; counts each `stay`; returns how many entries there were.
static int scan(DIR *stream, int limit) {
    struct dirent *entry;
    int count = 0, number;
    errno = 0;
    while (count < limit && (entry = readdir(stream))) {
        if (sscanf(entry->d_name, "stay%d", &number) == 1) seen[number]++;
        count++;
    }
    if (errno) err(1, "readdir");
    return count;
}

static void report(const char *what, int count) {
    int missing = 0, twice = 0;
    for (int i = 0; i < count; i++) {
        if (seen[i] == 0) missing++;
        if (seen[i] > 1) twice++;
    }
    printf("%s: %d missing, %d twice\n", what, missing, twice);
    memset(seen, 0, sizeof seen);
}

static int has(DIR *stream, const char *name) {
    struct dirent *entry;
    int found = 0;
    while ((entry = readdir(stream))) found += !strcmp(entry->d_name, name);
    return found;
}

static void rewound(void) {
    fill("rewound", 300);
    DIR *stream = open_stream("rewound");
    scan(stream, FILES);
    report("first scan", 300);
    make("rewound", "new", 1);
    rewinddir(stream);
    printf("a rewound directory shows the new name: %d\n", has(stream, "new1"));
    drop("rewound", "new", 1);
    rewinddir(stream);
    printf("and not the removed one: %d\n", has(stream, "new1"));
    closedir(stream);
    stream = open_stream("rewound");
    scan(stream, 10);
    make("rewound", "new", 2);
    rewinddir(stream);
    printf("rewound in mid-scan, new name: %d\n", has(stream, "new2"));
    closedir(stream);
}

static void changed_in_mid_scan(void) {
    fill("changed", files);
    for (int i = 0; i < CHANGES; i++) make("changed", "go", i);
    DIR *stream = open_stream("changed");
    for (int round = 0; round < 7; round++) {
        scan(stream, 100);
        for (int i = 0; i < 100; i++) {
            drop("changed", "go", round * 100 + i);
            make("changed", "come", round * 100 + i);
        }
    }
    scan(stream, 3 * FILES);
    report("changed in mid-scan", files);
    closedir(stream);
}

static void positions(void) {
    static char names[FILES][64];
    static long at[FILES];
    struct dirent *entry;
    int count = 0, wrong = 0;
    fill("positions", 1000);
    DIR *stream = open_stream("positions");
    for (;;) {
        at[count] = telldir(stream);
        if (!(entry = readdir(stream))) break;
        strcpy(names[count++], entry->d_name);
    }
    printf("entries: %d\n", count);
    for (int i = 0; i < count; i += 7) {
        int place = (i * 389) % count;
        seekdir(stream, at[place]);
        entry = readdir(stream);
        wrong += !entry || strcmp(entry->d_name, names[place]);
    }
    printf("seekdir to a place that telldir gave: %d wrong\n", wrong);
    seekdir(stream, at[count]);
    printf("seekdir to the end: %s\n", readdir(stream) ? "an entry" : "the end");
    // A removed entry is passed over, its successor comes next.
    seekdir(stream, at[500]);
    char path[80];
    snprintf(path, sizeof path, "positions/%s", names[499]);
    if (unlink(path)) err(1, "%s", path);
    entry = readdir(stream);
    printf("the place after a removed entry: %s\n", entry && !strcmp(entry->d_name, names[500]) ? "right" : "wrong");
    closedir(stream);
}

static void emptied_while_read(void) {
    struct dirent *entry;
    char path[300];
    fill("emptied", files);
    DIR *stream = open_stream("emptied");
    while ((entry = readdir(stream))) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "emptied/%s", entry->d_name);
        if (unlink(path)) err(1, "%s", path);
    }
    closedir(stream);
    printf("emptied while read, then removed: %s\n", rmdir("emptied") ? strerror(errno) : "ok");
}

static void removed(void) {
    fill("removed", 0);
    DIR *stream = open_stream("removed");
    if (rmdir("removed")) err(1, "removed");
    errno = 0;
    struct dirent *entry = readdir(stream);
    printf("a removed directory: %s, %s\n", entry ? "an entry" : "no entry", errno ? strerror(errno) : "no error");
    closedir(stream);
}

static void shared_by_two_processes(void) {
    fill("shared", 1000);
    DIR *stream = open_stream("shared");
    scan(stream, 1);
    memset(seen, 0, sizeof seen);
    int pid = fork();
    if (pid == 0) {
        rewinddir(stream);
        scan(stream, FILES);
        int missing = 0;
        for (int i = 0; i < 1000; i++) missing += seen[i] != 1;
        _exit(missing != 0);
    }
    int status;
    waitpid(pid, &status, 0);
    rewinddir(stream);
    scan(stream, FILES);
    report("shared with a child, parent", 1000);
    printf("shared with a child, child: status %d\n", WEXITSTATUS(status));
    closedir(stream);
}

int main(void) {
    if (getenv("FILES")) files = atoi(getenv("FILES"));
    if (files > FILES) errx(1, "FILES: %d at most", FILES);
    rewound();
    changed_in_mid_scan();
    positions();
    emptied_while_read();
    removed();
    shared_by_two_processes();
    return 0;
}
