/* The executable of a bundle: starts the interpreter beside it, in isolation, with the worker.

   A program and not a script, for there may be no shell where it runs. It finds itself by the path it was started with, links
   resolved, so that no /proc is needed either; exec keeps the process, so that the child the agent started is the worker. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

extern char **environ;

/* CPython's variables, which make it load other code; some count in isolation too, such as __PYVENV_LAUNCHER__ on macOS. */
static void clear_variables(void) {
    static const char *const prefixes[] = {"PYTHON", "_PYTHON", "__PYVENV_LAUNCHER__"};
    for (char **variable = environ; variable && *variable;) {
        int found = 0;
        for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
            found |= !strncmp(*variable, prefixes[i], strlen(prefixes[i]));
        if (!found) {
            variable++;
            continue;
        }
        for (char **next = variable; (*next = next[1]); next++) {} /* by hand: unsetenv() stops at a name that is empty */
    }
}

int main(int count, char **arguments) {
    static char *const before[] = {NULL /* the interpreter */, "-I", "-X", "utf8", "-m", "bridge_worker"};
    enum { fixed = sizeof before / sizeof *before };

    const char *started = (const char *)getauxval(AT_EXECFN);
    char *self = started ? realpath(started, NULL) : NULL;
    char **command = calloc(fixed + (size_t)count + 1, sizeof *command);
    char *python = self ? malloc(strlen(self) + sizeof "/" PYTHON) : NULL;
    if (!python || !command) {
        perror("omni-bridge: can't tell where it lies");
        return 2;
    }
    *strrchr(self, '/') = '\0';
    sprintf(python, "%s/%s", self, PYTHON);

    memcpy(command, before, sizeof before);
    command[0] = python;
    if (count > 1) memcpy(command + fixed, arguments + 1, (size_t)(count - 1) * sizeof *command);
    clear_variables();
    setenv("MALLOC_ARENA_MAX", "2", 0); /* glibc keeps an arena a thread otherwise, and what was freed in it */
    execv(python, command);
    fprintf(stderr, "omni-bridge: can't start %s: ", python);
    perror(NULL);
    return 2;
}
