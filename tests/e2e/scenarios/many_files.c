// Many files in one directory: created, listed, looked at and removed. 100,000 of them, or MANY.
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int main(void) {
    int many = getenv("MANY") ? atoi(getenv("MANY")) : 100000, count = 0, wrong = 0, number;
    char name[32], *seen = calloc(many, 1);
    struct dirent *entry;
    struct stat st;
    if (mkdir("many", 0755) || chdir("many")) err(1, "many");
    for (int i = 0; i < many; i++) {
        snprintf(name, sizeof name, "file-%d", i);
        int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd < 0) err(1, "create %s", name);
        close(fd);
    }
    DIR *stream = opendir(".");
    while ((entry = readdir(stream))) {
        if (sscanf(entry->d_name, "file-%d", &number) != 1) continue;
        if (seen[number]++) wrong++;
        count++;
    }
    closedir(stream);
    printf("listed %s, %d twice\n", count == many ? "all" : "not all", wrong);
    for (int i = 0; i < many; i += 97) {
        snprintf(name, sizeof name, "file-%d", i);
        if (stat(name, &st)) err(1, "stat %s", name);
    }
    for (int i = 0; i < many; i++) {
        snprintf(name, sizeof name, "file-%d", i);
        if (unlink(name)) err(1, "unlink %s", name);
    }
    if (chdir("..") || rmdir("many")) err(1, "rmdir");
    puts("removed");
    return 0;
}
