/* Notes what a process makes durable, so that a test can take away the rest.
 *
 * Preloaded (LD_PRELOAD), it stands before fsync and fdatasync. It watches the folder
 * SYNCED_FOLDER and notes in the folder SYNCED_NOTES, on the same disk:
 *
 *   lengths         "<inode> <length>" for each sync of a file, the last one counts
 *   files/<inode>   a link to each file that was synced, so that no other file gets
 *                   its inode
 *   folders/<inode> of each folder that was synced, the names that it had then: links
 *                   to the files, and for folders symbolic links to "<inode>"
 *
 * So a file that was created, renamed or removed is there, or not, as the last sync of
 * its folder left it. sync_file_range makes nothing durable and is not looked at.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int (*sync_function)(int);

/* Room for a path below a folder. */
#define LONG_PATH (PATH_MAX + NAME_MAX + 2)

static pthread_mutex_t one_folder_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static void give_up(const char *what, const char *path)
{
    fprintf(stderr, "synced.c: %s %s: %s\n", what, path, strerror(errno));
    abort();
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    if (!value)
        give_up("missing variable", name);
    return value;
}

/* Whether the descriptor is in the watched folder, and its path. */
static int is_watched(int fd, char path[PATH_MAX])
{
    char link[64];
    const char *folder = variable("SYNCED_FOLDER");
    size_t length = strlen(folder);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t got = readlink(link, path, PATH_MAX - 1);
    if (got < 0)
        return 0;
    path[got] = 0;
    return !strncmp(path, folder, length) && (path[length] == '/' || path[length] == 0);
}

static void note_file(int fd, const struct stat *before)
{
    const char *notes = variable("SYNCED_NOTES");
    char link[64], path[LONG_PATH], line[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    snprintf(path, sizeof path, "%s/files/%llu", notes, (unsigned long long)before->st_ino);
    if (linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW) && errno != EEXIST) {
        if (errno == ENOENT)
            return; /* it has no name any more, so nothing of it can be left */
        give_up("link", path);
    }
    snprintf(path, sizeof path, "%s/lengths", notes);
    int log = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    int length = snprintf(line, sizeof line, "%llu %llu\n", (unsigned long long)before->st_ino,
                          (unsigned long long)before->st_size);
    if (log < 0 || write(log, line, length) != length)
        give_up("write", path);
    close(log);
}

/* Gives a noted folder a name that the folder has. */
static void note_name(const char *folder, const char *noted, const char *name)
{
    char from[LONG_PATH], to[LONG_PATH], fresh[LONG_PATH], inode[32];
    struct stat is, was;
    snprintf(from, sizeof from, "%s/%s", folder, name);
    snprintf(to, sizeof to, "%s/%s", noted, name);
    snprintf(fresh, sizeof fresh, "%s.fresh", noted);
    if (lstat(from, &is))
        return; /* it was removed meanwhile */
    if (S_ISDIR(is.st_mode)) {
        snprintf(inode, sizeof inode, "%llu", (unsigned long long)is.st_ino);
        if (symlink(inode, to) && errno != EEXIST)
            give_up("note", to);
    } else if (lstat(to, &was) || was.st_ino != is.st_ino) {
        if (link(from, fresh)) {
            if (errno != ENOENT)
                give_up("link", from);
        } else if (rename(fresh, to)) {
            give_up("rename", to);
        }
    }
}

/* Takes from a noted folder a name that the folder has no more. */
static void forget_name(const char *folder, const char *noted, const char *name)
{
    char from[LONG_PATH], to[LONG_PATH];
    struct stat is;
    snprintf(from, sizeof from, "%s/%s", folder, name);
    snprintf(to, sizeof to, "%s/%s", noted, name);
    if (lstat(from, &is) && unlink(to))
        give_up("unlink", to);
}

static void for_each_name(const char *listed, const char *folder, const char *noted,
                          void (*act)(const char *, const char *, const char *))
{
    DIR *names = opendir(listed);
    if (!names)
        give_up("open", listed);
    for (struct dirent *entry; (entry = readdir(names));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            act(folder, noted, entry->d_name);
    closedir(names);
}

static void note_folder(const char *folder, ino_t inode)
{
    char noted[PATH_MAX];
    snprintf(noted, sizeof noted, "%s/folders/%llu", variable("SYNCED_NOTES"),
             (unsigned long long)inode);
    if (mkdir(noted, 0700) && errno != EEXIST)
        give_up("make", noted);
    for_each_name(folder, folder, noted, note_name);
    for_each_name(noted, folder, noted, forget_name);
}

static int sync_and_note(int fd, const char *name)
{
    char path[PATH_MAX];
    struct stat before;
    sync_function real = (sync_function)dlsym(RTLD_NEXT, name);
    if (!real)
        give_up("find", name);
    if (!is_watched(fd, path) || fstat(fd, &before))
        return real(fd);
    if (S_ISDIR(before.st_mode)) {
        /* Noted first: what comes into the folder during the sync may not count. */
        pthread_mutex_lock(&one_folder_at_a_time);
        note_folder(path, before.st_ino);
        pthread_mutex_unlock(&one_folder_at_a_time);
        return real(fd);
    }
    int result = real(fd);
    if (!result)
        note_file(fd, &before);
    return result;
}

int fsync(int fd)
{
    return sync_and_note(fd, "fsync");
}

int fdatasync(int fd)
{
    return sync_and_note(fd, "fdatasync");
}
