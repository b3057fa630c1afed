/*
 * forkstorm RATE SECONDS LIFE_MS [EXEC_EVERY]: short-lived processes.
 *
 * Forks RATE children a second for SECONDS. Each lives LIFE_MS and exits, save every EXEC_EVERY-th,
 * which execs /bin/true then (default 10, 0: none). A rate of 0 forks nobody: it just lives.
 *
 * Ends after the last of its children, or early on SIGTERM, and prints how many it made and how
 * many it could not make.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000LL
#define TICK_NS 2000000LL /* children are made in batches this far apart */

static volatile sig_atomic_t stop;

static void on_term(int number)
{
	(void)number;
	stop = 1;
}

static long long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NS + t.tv_nsec;
}

/* Returns early where a signal came. */
static void sleep_ns(long long ns)
{
	struct timespec t = { ns / NS, ns % NS };

	clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

__attribute__((noreturn)) static void child(long long life_ns, int exec)
{
	signal(SIGTERM, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sleep_ns(life_ns);
	if (exec)
		execl("/bin/true", "true", (char *)NULL);
	_exit(0);
}

static double number(const char *text, double most)
{
	char *end;
	double n = strtod(text, &end);

	if (end == text || *end || !(n >= 0 && n <= most)) {
		fprintf(stderr, "forkstorm: %s is no number from 0 to %.0f\n", text, most);
		exit(2);
	}
	return n;
}

int main(int argc, char **argv)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN }, term = { .sa_handler = on_term };
	long long length_ns, life_ns, begin, elapsed, made = 0, failed = 0;
	double rate;
	long every;

	if (argc != 4 && argc != 5) {
		fputs("usage: forkstorm RATE SECONDS LIFE_MS [EXEC_EVERY]\n", stderr);
		return 2;
	}
	rate = number(argv[1], 100000);
	length_ns = number(argv[2], 86400) * NS;
	life_ns = number(argv[3], 60000) * 1e6;
	every = argc == 5 ? number(argv[4], 1000000) : 10;
	sigaction(SIGCHLD, &ignore, NULL); /* children leave no zombies (wait(2)) */
	sigaction(SIGTERM, &term, NULL);

	begin = now_ns();
	while (!stop && (elapsed = now_ns() - begin) < length_ns) {
		/* What a slow host could not make in time is made up for, or never made. */
		long long due = elapsed * rate / NS;

		while (!stop && made + failed < due && now_ns() - begin < length_ns) {
			pid_t pid = fork();

			if (pid == 0)
				child(life_ns, every && (made + 1) % every == 0);
			if (pid < 0)
				failed++;
			else
				made++;
		}
		sleep_ns(rate > 0 ? TICK_NS : length_ns - elapsed);
	}
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	printf("made %lld failed %lld\n", made, failed);
	return 0;
}
