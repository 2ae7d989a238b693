/* program: what can be run, what cannot, and which words say so. */
#include "../../client/program.h"
#include "temp_dir.h"
#include "test.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CANNOT_RUN = 126, NOT_FOUND = 127, WHY_BYTES = 512 };

static char why[WHY_BYTES];
static bool is_static; /* what was found at last */

/* What program_check() says of PATH, which must be EXPECTED and, if refused, name WORD. */
static void check(const char *path, int expected, const char *word)
{
    why[0] = 0;
    int got = program_check(path, &is_static, why, sizeof why);
    if (got != expected)
        fail_msg("%s: %d, not %d: %s", path, got, expected, why);
    if (expected && (!strstr(why, word) || strchr(why, '\n')))
        fail_msg("%s: not '%s': %s", path, word, why);
}

static const char *find(const char *name, int expected, const char *word)
{
    static char path[PATH_MAX];
    why[0] = 0;
    int got = program_find(name, path, &is_static, why, sizeof why);
    if (got != expected)
        fail_msg("%s: %d, not %d: %s", name, got, expected, why);
    if (expected && (!strstr(why, word) || strchr(why, '\n')))
        fail_msg("%s: not '%s': %s", name, word, why);
    return path;
}

static const char *script(const char *name, const char *first_line)
{
    char *text;
    assert_true(asprintf(&text, "%s\necho\n", first_line) > 0);
    const char *path = temp_file(name, text, strlen(text), 0755);
    free(text);
    return path;
}

struct image {
    Elf64_Ehdr header;
    Elf64_Phdr parts[3];
};

static struct image dynamic_image(void)
{
    struct image image;
    memset(&image, 0, sizeof image);
    memcpy(image.header.e_ident, ELFMAG, SELFMAG);
    image.header.e_ident[EI_CLASS] = ELFCLASS64;
    image.header.e_ident[EI_DATA] = ELFDATA2LSB;
    image.header.e_machine = EM_X86_64;
    image.header.e_type = ET_DYN;
    image.header.e_phoff = offsetof(struct image, parts);
    image.header.e_phentsize = sizeof image.parts[0];
    image.header.e_phnum = 3;
    image.parts[0].p_type = PT_PHDR;
    image.parts[1].p_type = PT_LOAD;
    image.parts[2].p_type = PT_INTERP;
    return image;
}

static const char *image_file(const char *name, const struct image *image)
{
    return temp_file(name, image, sizeof *image, 0755);
}

static void test_elf(void **state)
{
    (void)state;
    struct image image = dynamic_image();
    check(image_file("dynamic", &image), 0, "");
    assert_false(is_static);
    check("/bin/sh", 0, "");
    check("/proc/self/exe", 0, "");
    /* The dynamic linker by its name loads nothing when it starts, and what it is told to later. */
    check("/lib64/ld-linux-x86-64.so.2", 0, "");
    assert_false(is_static);

    image.parts[2].p_type = PT_LOAD;
    const char *fixed = image_file("static", &image);
    check(fixed, 0, "");
    assert_true(is_static);
    assert_int_equal(program_is_static(fixed), 1);
    assert_int_equal(program_is_static("/bin/sh"), 0);
    assert_int_equal(program_is_static("/no/such/file"), -ENOENT);
    image = dynamic_image();
    image.header.e_phnum = 0;
    check(image_file("no-parts", &image), CANNOT_RUN, "not a whole program");
    image = dynamic_image();
    image.header.e_phoff = UINT64_MAX - 10;
    check(image_file("far", &image), CANNOT_RUN, "not a whole program");
    image = dynamic_image();
    image.header.e_phoff = sizeof image - 10;
    image.header.e_phnum = UINT16_MAX;
    check(image_file("cut", &image), CANNOT_RUN, "not a whole program");

    image = dynamic_image();
    image.header.e_ident[EI_CLASS] = ELFCLASS32;
    image.header.e_machine = EM_386;
    check(image_file("32-bit", &image), CANNOT_RUN, "not a 64-bit x86 program");
    image = dynamic_image();
    image.header.e_ident[EI_CLASS] = ELFCLASS32; /* x32 */
    check(image_file("x32", &image), CANNOT_RUN, "not a 64-bit x86 program");
    image = dynamic_image();
    image.header.e_machine = EM_AARCH64;
    check(image_file("arm", &image), CANNOT_RUN, "not a 64-bit x86 program");
    for (size_t len = SELFMAG; len < sizeof(Elf64_Ehdr); len += 10)
        check(temp_file("short", &image, len, 0755), CANNOT_RUN, "not a whole program");
}

/* A shell that has stopped itself, with VARIABLE alone in its environment. */
static pid_t start_shell(const char *variable)
{
    pid_t pid = fork();
    if (pid == 0) {
        char *environment[] = {(char *)variable, NULL};
        char *argv[] = {(char *)"sh", (char *)"-c", (char *)"kill -STOP $$; :", NULL};
        execve("/bin/sh", argv, environment);
        _exit(1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    return pid;
}

static void end_shell(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_loads_no_agent(void **state)
{
    (void)state;
    const char *agent = "/tmp/edm-AbCdEf/agent.so";
    pid_t pid = start_shell("LD_PRELOAD=/tmp/edm-AbCdEf/agent.so");
    assert_int_equal(program_loads_no_agent(pid, agent), 0);
    assert_true(program_is_below(pid, getpid()));
    assert_true(program_is_below(pid, getppid()));
    assert_false(program_is_below(getpid(), pid));
    end_shell(pid);
    assert_int_equal(program_loads_no_agent(pid, agent), -ENOENT);

    /* The words may stand anywhere in a long environment. */
    enum { LONG = 20000, STEP = 1021 };
    static char variable[LONG + 64];
    for (size_t at = STEP; at < LONG; at += STEP) {
        memset(variable, 'x', sizeof variable);
        memcpy(variable, "A=", 2);
        memcpy(variable + at, agent, strlen(agent));
        variable[sizeof variable - 1] = 0;
        pid = start_shell(variable);
        assert_int_equal(program_loads_no_agent(pid, agent), 0);
        end_shell(pid);
    }
    pid = start_shell("LD_PRELOAD=/tmp/edm-AbCdEf/socket");
    assert_int_equal(program_loads_no_agent(pid, agent), 1);
    end_shell(pid);
}

/* Cores that are dumped are tests/run/beside.py's. */
static void test_has_not_dumped(void **state)
{
    (void)state;
    pid_t pid = start_shell("A=");
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    assert_false(program_has_dumped(pid, pidfd));
    kill(pid, SIGKILL);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_false(program_has_dumped(pid, pidfd));
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_false(program_has_dumped(pid, pidfd));
    close(pidfd);
}

static void test_static_program(void **state)
{
    (void)state;
#ifdef STATIC_PROGRAM
    check(STATIC_PROGRAM, 0, "");
    assert_true(is_static);
    char line[PATH_MAX + 8];
    snprintf(line, sizeof line, "#!%s -x", STATIC_PROGRAM);
    check(script("by-static", line), 0, "");
    assert_true(is_static);
#else
    skip();
#endif
}

static void test_scripts(void **state)
{
    (void)state;
    check(script("sh", "#!/bin/sh"), 0, "");
    check(script("sh-x", "#! \t/bin/sh -x"), 0, "");
    check(script("env", "#!/usr/bin/env sh"), 0, "");
    check(temp_file("no-newline", "#!/bin/sh", 9, 0755), 0, "");
    /* The kernel or the shell decides about these. */
    check(script("none", "#!"), 0, "");
    check(temp_file("text", "echo\n", 5, 0755), 0, "");
    check(temp_file("empty", "", 0, 0755), 0, "");

    check(script("missing", "#!/no/such/interpreter -u"), CANNOT_RUN, "/no/such/interpreter");
    check(script("missing-2", "#!/no/such/interpreter"), CANNOT_RUN, "No such file");
    check(script("crlf", "#!/bin/sh\r"), CANNOT_RUN, "No such file");
    char line[PATH_MAX + 8];
    snprintf(line, sizeof line, "#!%s", temp_file("plain", "x", 1, 0644));
    check(script("not-executable", line), CANNOT_RUN, "Permission denied");
}

static void test_script_chains(void **state)
{
    (void)state;
    char line[PATH_MAX + 8];
    struct image image = dynamic_image();
    image.parts[2].p_type = PT_LOAD;
    snprintf(line, sizeof line, "#!%s", image_file("static-end", &image));
    char before[PATH_MAX];
    /* A script whose interpreter is a script: what counts is the last one. */
    for (int depth = 0; depth < 3; depth++) {
        char name[32];
        snprintf(name, sizeof name, "chain-%d", depth);
        const char *path = script(name, line);
        check(path, 0, "");
        assert_true(is_static);
        snprintf(before, sizeof before, "%s", path);
        snprintf(line, sizeof line, "#!%s", before);
    }
    /* One that has no end comes to an end here. */
    snprintf(line, sizeof line, "#!%s", temp_path("circle"));
    check(script("circle", line), 0, "");
}

static void test_long_first_line(void **state)
{
    (void)state;
    static char text[20000];
    memset(text, 'x', sizeof text);
    text[0] = '#';
    text[1] = '!';
    text[2] = '/';
    check(temp_file("endless", text, sizeof text, 0755), CANNOT_RUN, "endless");
    memset(text + 2, ' ', sizeof text - 2);
    check(temp_file("blank", text, sizeof text, 0755), 0, "");
    /* Up to the zero byte it is a good line. */
    snprintf(text + 2, 16, "/bin/sh");
    check(temp_file("zero-byte", text, sizeof text, 0755), 0, "");
}

static void test_find_by_path(void **state)
{
    (void)state;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", script("tool", "#!/bin/sh"));
    assert_string_equal(find(path, 0, ""), path);
    find("/no/such/program", NOT_FOUND, "No such file");
    snprintf(path, sizeof path, "%s/x", temp_path("tool"));
    find(path, NOT_FOUND, "Not a directory");
    find(temp_dir(), CANNOT_RUN, "directory");
    find(temp_file("data", "x", 1, 0644), CANNOT_RUN, "Permission denied");
    find("", NOT_FOUND, "not found");
    static char long_name[PATH_MAX + 100];
    memset(long_name, 'y', sizeof long_name - 1);
    long_name[0] = '/';
    find(long_name, CANNOT_RUN, "/yyy");
    /* Below the working directory. */
    char before[PATH_MAX];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(temp_dir()), 0);
    assert_string_equal(find("./tool", 0, ""), "./tool");
    assert_int_equal(chdir(before), 0);
}

static void test_find_in_path(void **state)
{
    (void)state;
    char first[PATH_MAX], second[PATH_MAX], list[4 * PATH_MAX], expected[PATH_MAX + 16];
    snprintf(first, sizeof first, "%s", temp_path("first"));
    snprintf(second, sizeof second, "%s", temp_path("second"));
    assert_int_equal(mkdir(first, 0700), 0);
    assert_int_equal(mkdir(second, 0700), 0);
    script("second/edm-tool", "#!/bin/sh");
    const char *before_test = getenv("PATH");
    char *old = strdup(before_test ? before_test : "/usr/bin:/bin");
    assert_non_null(old);

    snprintf(list, sizeof list, "/no/such/dir:%s:%s", first, second);
    setenv("PATH", list, 1);
    snprintf(expected, sizeof expected, "%s/edm-tool", second);
    assert_string_equal(find("edm-tool", 0, ""), expected);
    find("edm-no-such-tool", NOT_FOUND, "command not found");
    find("edm-no-such-tool", NOT_FOUND, "edm-no-such-tool");
    /* What cannot be run is passed over while there is another, and named when there is none. */
    temp_file("first/edm-tool", "x", 1, 0644);
    assert_string_equal(find("edm-tool", 0, ""), expected);
    temp_file("first/edm-data", "x", 1, 0644);
    find("edm-data", CANNOT_RUN, "Permission denied");
    assert_int_equal(mkdir(temp_path("first/edm-dir"), 0700), 0);
    find("edm-dir", CANNOT_RUN, "directory");
    /* The first that can be run wins. */
    assert_int_equal(chmod(temp_path("first/edm-tool"), 0755), 0);
    snprintf(expected, sizeof expected, "%s/edm-tool", first);
    assert_string_equal(find("edm-tool", 0, ""), expected);

    /* An empty entry is the working directory. */
    char before[PATH_MAX];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(second), 0);
    setenv("PATH", "/no/such/dir:", 1);
    assert_string_equal(find("edm-tool", 0, ""), "./edm-tool");
    setenv("PATH", "", 1);
    assert_string_equal(find("edm-tool", 0, ""), "./edm-tool");
    assert_int_equal(chdir(before), 0);
    unsetenv("PATH");
    assert_non_null(strstr(find("sh", 0, ""), "/sh"));
    setenv("PATH", old, 1);
    free(old);
}

/* Starts PATH, lets it go, and returns its wait status; what it wrote to its standard output, which
 * is a file, is in OUTPUT, and what exec said in *EXEC_ERROR (0: nothing). */
static int start(const char *path, char *const *argv, char *output, size_t output_cap,
                 int *exec_error)
{
    int go[2], error_fd = -1;
    const char *file = temp_file("output", "", 0, 0600);
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    int fd = open(file, O_WRONLY | O_CLOEXEC);
    assert_true(saved >= 0 && fd >= 0);
    assert_true(dup2(fd, STDOUT_FILENO) >= 0);
    pid_t child = program_start(path, argv, "libm.so.6", "/no/such/socket", go[0], &error_fd);
    assert_true(dup2(saved, STDOUT_FILENO) >= 0);
    close(saved);
    close(fd);
    assert_true(child > 0);
    int status;
    assert_int_equal(waitpid(child, &status, WNOHANG), 0); /* it waits for the byte */
    assert_int_equal(write(go[1], "g", 1), 1);
    close(go[0]);
    close(go[1]);
    *exec_error = 0;
    ssize_t got = read(error_fd, exec_error, sizeof *exec_error);
    assert_true(got == 0 || got == (ssize_t)sizeof *exec_error);
    close(error_fd);
    assert_int_equal(waitpid(child, &status, 0), child);
    fd = open(file, O_RDONLY | O_CLOEXEC);
    got = read(fd, output, output_cap - 1);
    close(fd);
    assert_true(got >= 0);
    output[got] = 0;
    return status;
}

static void test_start(void **state)
{
    (void)state;
    char output[8192];
    int exec_error;

    char text[] = "#!/bin/sh\nLD_PRELOAD= ; echo \"$EDM_AGENT\" \"$#\" \"$2\"; exit 9\n";
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", temp_file("run", text, strlen(text), 0755));
    setenv("EDM_AGENT", "of another run", 1);
    int status = start(path, (char *[]){"run", "one", "two words", NULL}, output, sizeof output,
                       &exec_error);
    assert_int_equal(exec_error, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 9);
    assert_string_equal(output, "/no/such/socket 2 two words\n");
    unsetenv("EDM_AGENT");

    /* No first line: the shell's. */
    char plain[] = "echo shell $1\n";
    snprintf(path, sizeof path, "%s", temp_file("plain-script", plain, strlen(plain), 0755));
    status = start(path, (char *[]){"x", "argument", NULL}, output, sizeof output, &exec_error);
    assert_int_equal(exec_error, 0);
    assert_int_equal(status, 0);
    assert_string_equal(output, "shell argument\n");
}

static void test_start_fails(void **state)
{
    (void)state;
    char output[64];
    int exec_error;
    int status =
        start("/no/such/program", (char *[]){"x", NULL}, output, sizeof output, &exec_error);
    assert_int_equal(exec_error, ENOENT);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), CANNOT_RUN);
    assert_string_equal(output, "");
}

/* If edm ends before it gave the word, the program never runs. */
static void test_never_let_go(void **state)
{
    (void)state;
    int go[2], error_fd, status;
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    const char *file = temp_path("made");
    pid_t child = program_start("/bin/sh", (char *[]){"sh", "-c", ": >$0", (char *)file, NULL},
                                "libm.so.6", "/no/such/socket", go[0], &error_fd);
    assert_true(child > 0);
    close(go[0]);
    /* The child has the other end too: it cannot see the end of the file before it is killed. */
    usleep(50000);
    assert_int_equal(waitpid(child, &status, WNOHANG), 0);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    close(go[1]);
    close(error_fd);
    assert_int_equal(access(file, F_OK), -1);
}

static void test_environment(void **state)
{
    (void)state;
    static char output[65536];
    int exec_error;
    setenv("EDM_TEST_KEPT", "kept", 1);
    setenv("LD_PRELOAD", "libc.so.6", 1);
    int status = start("/usr/bin/env", (char *[]){"env", NULL}, output, sizeof output, &exec_error);
    unsetenv("LD_PRELOAD");
    unsetenv("EDM_TEST_KEPT");
    assert_int_equal(exec_error, 0);
    assert_int_equal(status, 0);
    assert_non_null(strstr(output, "LD_PRELOAD=libm.so.6:libc.so.6\n"));
    assert_non_null(strstr(output, "EDM_AGENT=/no/such/socket\n"));
    assert_non_null(strstr(output, "EDM_TEST_KEPT=kept\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elf),
        cmocka_unit_test(test_loads_no_agent),
        cmocka_unit_test(test_has_not_dumped),
        cmocka_unit_test(test_static_program),
        cmocka_unit_test(test_scripts),
        cmocka_unit_test(test_script_chains),
        cmocka_unit_test(test_long_first_line),
        cmocka_unit_test(test_find_by_path),
        cmocka_unit_test(test_find_in_path),
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_start_fails),
        cmocka_unit_test(test_never_let_go),
        cmocka_unit_test(test_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
