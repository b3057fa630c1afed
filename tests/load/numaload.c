/*
 * numaload: one process = one worker of a test.
 *
 * Puts memory of a given size on given nodes while its threads run on given CPUs, then passes over
 * it again and again, and logs how long each pass of each thread took. The memory carries no
 * mempolicy: it is bound while it is touched, and the task's policy is default again afterwards, so
 * that numa_maps says "default".
 *
 * Once it is ready, SIGUSR1 makes it create --storm threads, each by the one before it, and SIGUSR2
 * makes it the program --become, by exec and with the same options.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MPOL_DEFAULT 0
#define MPOL_BIND 2
#define PAGE 4096UL
#define THP (2UL << 20)
#define MAX_NODES 64
#define MAX_THREADS 4096

enum kind { ANON, SHMEM, FILE_BACKED, HUGETLB };

static struct {
	size_t size;
	int nodes[MAX_NODES], node_count;
	const char *start_cpus, *cpus, *file, *comm, *log, *ready, *become;
	int threads, storm;
	enum kind kind;
	int thp; /* -1 as the system has it, 0 never, 1 always */
	double write_share;
	int churn, pageout, lock;
	long pause_ms, seconds;
} opt = { .size = 64UL << 20, .threads = 1, .thp = -1, .write_share = 0.25, .pause_ms = 200 };

static atomic_int stop, storm_wanted, exec_wanted;
static char **arguments;
static char *memory;
static FILE *log_file;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((noreturn, format(printf, 2, 3))) static void die(int code, const char *format, ...)
{
	va_list ap;

	fputs("numaload: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(code);
}

static void on_term(int signal)
{
	(void)signal;
	atomic_store(&stop, 1);
}

static void on_wish(int signal)
{
	atomic_store(signal == SIGUSR1 ? &storm_wanted : &exec_wanted, 1);
}

static size_t parse_size(const char *text)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	if (end != text && !strcmp(end, "KiB"))
		return value << 10;
	if (end != text && !strcmp(end, "MiB"))
		return value << 20;
	if (end != text && !strcmp(end, "GiB"))
		return value << 30;
	die(2, "%s is not a size; write one as in 64MiB", text);
}

static long parse_number(const char *text)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (end == text || *end || value < 0)
		die(2, "%s is not a number", text);
	return value;
}

static cpu_set_t parse_cpus(const char *text)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (const char *at = text; *at;) {
		char *end;
		long first = strtol(at, &end, 10), last = first;

		if (end == at)
			die(2, "%s is not a list of CPUs such as 0-1,4", text);
		if (*end == '-')
			last = strtol(end + 1, &end, 10);
		for (long cpu = first; cpu <= last && cpu < CPU_SETSIZE; cpu++)
			CPU_SET(cpu, &set);
		if (*end && *end != ',')
			die(2, "%s is not a list of CPUs such as 0-1,4", text);
		at = *end ? end + 1 : end;
	}
	return set;
}

static void parse_nodes(const char *text)
{
	for (const char *at = text; *at;) {
		char *end;
		long node = strtol(at, &end, 10);

		if (end == at || node < 0 || node >= MAX_NODES || (*end && *end != ',') ||
		    opt.node_count == MAX_NODES)
			die(2, "%s is not a list of nodes such as 2,3", text);
		opt.nodes[opt.node_count++] = (int)node;
		at = *end ? end + 1 : end;
	}
}

static void set_policy(int mode, unsigned long mask)
{
	if (syscall(SYS_set_mempolicy, mode, mask ? &mask : NULL, mask ? MAX_NODES + 1 : 0))
		die(1, "set_mempolicy: %s (is the node online?)", strerror(errno));
}

static char *map_memory(void)
{
	size_t length = opt.size + THP;
	char *at;
	int fd;

	switch (opt.kind) {
	case ANON:
		at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		break;
	case SHMEM:
		at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		break;
	case HUGETLB:
		at = mmap(NULL, opt.size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
		if (at == MAP_FAILED)
			die(1, "no huge pages: raise vm.nr_hugepages");
		return at;
	case FILE_BACKED:
		if (!opt.file)
			die(2, "--kind file needs --file PATH");
		fd = open(opt.file, O_RDWR | O_CREAT, 0644);
		if (fd < 0 || ftruncate(fd, (off_t)length))
			die(1, "%s: %s", opt.file, strerror(errno));
		at = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
		if (at == MAP_FAILED)
			die(1, "mmap: %s", strerror(errno));
		/* From the file's beginning, so that all who map it map the same pages. */
		return at;
	default:
		abort();
	}
	if (at == MAP_FAILED)
		die(1, "mmap: %s", strerror(errno));
	at = (char *)(((uintptr_t)at + THP - 1) & ~(THP - 1));
	if (opt.thp >= 0)
		madvise(at, opt.size, opt.thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return at;
}

static void place_memory(void)
{
	int parts = opt.node_count ? opt.node_count : 1;
	size_t part = opt.size / (size_t)parts & ~(THP - 1);
	volatile char sum = 0;

	memory = map_memory();
	for (int i = 0; i < parts; i++) {
		char *from = memory + (size_t)i * part;
		char *to = i == parts - 1 ? memory + opt.size : from + part;

		if (opt.node_count)
			set_policy(MPOL_BIND, 1UL << opt.nodes[i]);
		for (char *at = from; at < to; at += PAGE) {
			if (opt.kind == FILE_BACKED)
				sum += *(volatile char *)at;
			else
				*(volatile char *)at = 1;
		}
	}
	if (opt.node_count)
		set_policy(MPOL_DEFAULT, 0);
	if (opt.lock && mlock(memory, opt.size))
		die(1, "mlock: %s", strerror(errno));
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void one_pass(char *from, char *to)
{
	size_t every = opt.write_share > 0 ? (size_t)(1 / opt.write_share) : 0;
	volatile uint64_t sum = 0;
	size_t n = 0;

	for (char *at = from; at < to && !atomic_load(&stop); at += PAGE, n++) {
		sum += *(volatile uint64_t *)at;
		if (every && opt.kind != FILE_BACKED && n % every == 0)
			*(volatile uint64_t *)at = n;
	}
	if (opt.churn) {
		size_t size = 1UL << 20;
		char *extra = mmap(NULL, size, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (extra != MAP_FAILED) {
			for (size_t i = 0; i < size; i += PAGE)
				extra[i] = 1;
			munmap(extra, size);
		}
	}
}

/* In slices: SIGTERM wakes one thread only. */
static void rest(void)
{
	for (long left = opt.pause_ms; left > 0 && !atomic_load(&stop); left -= 1000) {
		long ms = left < 1000 ? left : 1000;
		struct timespec slice = { ms / 1000, ms % 1000 * 1000000L };

		nanosleep(&slice, NULL);
	}
}

/* Only threads that are not bound yet create others that are not. */
static void *storm(void *left)
{
	struct timespec gap = { 0, 10000000L };
	pthread_attr_t small;
	pthread_t next;

	nanosleep(&gap, NULL);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
	if ((intptr_t)left > 0 && pthread_create(&next, &small, storm, (char *)left - 1))
		die(1, "no thread: %s", strerror(errno));
	while (!atomic_load(&stop))
		pause();
	return NULL;
}

static void grant_wishes(void)
{
	pthread_t first;

	if (atomic_exchange(&storm_wanted, 0) && opt.storm &&
	    pthread_create(&first, NULL, storm, (void *)(intptr_t)(opt.storm - 1)))
		die(1, "no thread");
	if (atomic_exchange(&exec_wanted, 0) && opt.become) {
		arguments[0] = (char *)opt.become;
		execv(opt.become, arguments);
		die(1, "%s: %s", opt.become, strerror(errno));
	}
}

static void *work(void *argument)
{
	int thread = (int)(intptr_t)argument;
	size_t slice = opt.size / (size_t)opt.threads & ~(PAGE - 1);
	char *from = memory + (size_t)thread * slice;

	if (opt.comm)
		prctl(PR_SET_NAME, opt.comm, 0, 0, 0);
	if (opt.pageout)
		rest();
	for (uint64_t pass = 0; !atomic_load(&stop); pass++) {
		uint64_t began = now_ns();

		one_pass(from, from + slice);
		if (log_file) {
			uint64_t took = now_ns() - began;

			pthread_mutex_lock(&log_lock);
			fprintf(log_file, "{\"thread\":%d,\"pass\":%lu,\"start_ns\":%lu,\"took_ns\":%lu}\n",
				thread, (unsigned long)pass, (unsigned long)began, (unsigned long)took);
			fflush(log_file);
			pthread_mutex_unlock(&log_lock);
		}
		rest();
		if (thread == 0)
			grant_wishes();
	}
	return NULL;
}

static void say_ready(void)
{
	FILE *file = fopen(opt.ready, "w");

	if (!file || fprintf(file, "%d\n", (int)getpid()) < 0 || fclose(file))
		die(1, "%s: %s", opt.ready, strerror(errno));
}

static void parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "size", 1, 0, 's' },	     { "memory-nodes", 1, 0, 'm' }, { "start-cpus", 1, 0, 'S' },
		{ "cpus", 1, 0, 'c' },	     { "threads", 1, 0, 't' },	    { "kind", 1, 0, 'k' },
		{ "file", 1, 0, 'f' },	     { "thp", 1, 0, 'T' },	    { "comm", 1, 0, 'n' },
		{ "log", 1, 0, 'l' },	     { "write-share", 1, 0, 'w' },  { "churn", 0, 0, 'C' },
		{ "pause-ms", 1, 0, 'p' },   { "seconds", 1, 0, 'e' },	    { "ready", 1, 0, 'r' },
		{ "pageout", 0, 0, 'o' },    { "lock", 0, 0, 'L' },	    { "storm", 1, 0, 'W' },
		{ "become", 1, 0, 'b' },     { 0, 0, 0, 0 },
	};
	static const char *const kinds[] = { "anon", "shmem", "file", "hugetlb" };
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's': opt.size = parse_size(optarg); break;
		case 'm': parse_nodes(optarg); break;
		case 'S': opt.start_cpus = optarg; break;
		case 'c': opt.cpus = optarg; break;
		case 't': opt.threads = (int)parse_number(optarg); break;
		case 'f': opt.file = optarg; break;
		case 'n': opt.comm = optarg; break;
		case 'l': opt.log = optarg; break;
		case 'w': opt.write_share = atof(optarg); break;
		case 'C': opt.churn = 1; break;
		case 'o': opt.pageout = 1; break;
		case 'L': opt.lock = 1; break;
		case 'W': opt.storm = (int)parse_number(optarg); break;
		case 'b': opt.become = optarg; break;
		case 'p': opt.pause_ms = parse_number(optarg); break;
		case 'e': opt.seconds = parse_number(optarg); break;
		case 'r': opt.ready = optarg; break;
		case 'T':
			if (strcmp(optarg, "always") && strcmp(optarg, "never"))
				die(2, "--thp is always or never");
			opt.thp = !strcmp(optarg, "always");
			break;
		case 'k':
			for (opt.kind = ANON; strcmp(kinds[opt.kind], optarg); opt.kind++)
				if (opt.kind == HUGETLB)
					die(2, "--kind is anon, shmem, file or hugetlb");
			break;
		default: exit(2);
		}
	}
	if (optind < argc && argv[optind][0] == '-')
		die(2, "%s: not an option", argv[optind]);
	if (opt.threads < 1 || opt.threads > MAX_THREADS)
		die(2, "--threads is 1 to %d", MAX_THREADS);
}

int main(int argc, char **argv)
{
	pthread_t threads[MAX_THREADS];
	cpu_set_t first;

	arguments = argv;
	parse_options(argc, argv);
	signal(SIGUSR1, on_wish);
	signal(SIGUSR2, on_wish);
	signal(SIGTERM, on_term);
	signal(SIGINT, on_term);
	signal(SIGALRM, on_term);
	sched_getaffinity(0, sizeof(first), &first);
	if (opt.cpus || opt.start_cpus) {
		cpu_set_t cpus = parse_cpus(opt.cpus ? opt.cpus : opt.start_cpus);

		if (sched_setaffinity(0, sizeof(cpus), &cpus))
			die(1, "sched_setaffinity: %s (are these CPUs online?)", strerror(errno));
	}
	if (opt.log && !(log_file = fopen(opt.log, "a")))
		die(1, "%s: %s", opt.log, strerror(errno));
	place_memory();
	for (int i = 1; i < opt.threads; i++)
		if (pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i))
			die(1, "cannot create thread %d", i);
	if (!opt.cpus && opt.start_cpus) {
		/* Free from now on: the threads keep running where they are until somebody moves them. */
		char path[64];

		sched_setaffinity(0, sizeof(first), &first);
		for (pid_t tid = getpid(); tid < getpid() + 2 * opt.threads + 8; tid++) {
			snprintf(path, sizeof(path), "/proc/self/task/%d", (int)tid);
			if (!access(path, F_OK))
				sched_setaffinity(tid, sizeof(first), &first);
		}
	}
	/* A third is swapped out, and stays so until the next pass. */
	if (opt.pageout && madvise(memory, opt.size / 3 & ~(PAGE - 1), MADV_PAGEOUT))
		die(1, "madvise: %s", strerror(errno));
	if (opt.ready)
		say_ready();
	if (opt.seconds)
		alarm((unsigned)opt.seconds);
	work((void *)(intptr_t)0);
	for (int i = 1; i < opt.threads; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
