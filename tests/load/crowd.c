/*
 * crowd N: N idle processes, which end with this one.
 *
 * Prints N once all are there.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static void child(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* The parent may have ended before we asked to end with it. */
	while (getppid() == parent)
		pause();
	_exit(0);
}

int main(int argc, char **argv)
{
	char *end;
	long count = argc == 2 ? strtol(argv[1], &end, 10) : -1;
	pid_t parent = getpid();

	if (count < 0 || end == argv[1] || *end) {
		fputs("usage: crowd N\n", stderr);
		return 2;
	}
	for (long i = 0; i < count; i++) {
		pid_t pid = fork();

		if (pid < 0) {
			fprintf(stderr, "crowd: process %ld: %s\n", i, strerror(errno));
			return 1;
		}
		if (pid == 0)
			child(parent);
	}
	printf("%ld\n", count);
	fflush(stdout);
	for (;;)
		pause();
}
