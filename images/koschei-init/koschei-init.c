/*
 * koschei-init: process 1 of a Postgres pod. See docs/architecture.md, "koschei-init and the agent".
 *
 *   koschei-init --lock <file> -- <agent> <arguments...>
 *
 * It holds an exclusive lock on the volume, starts the agent with the write end of a pipe as descriptor 3, and reads
 * lines from it: `postmaster <pid>` (0: none) and `deadline <ms>` on CLOCK_BOOTTIME (0: none). 0.2 s after the
 * deadline, or when the agent ends, it fences: SIGQUIT to the postmaster, 0.7 s later SIGKILL to every other process
 * until none is left. Then it starts the agent again, with KOSCHEI_BOOT counting from 1. SIGTERM and SIGINT go to the agent;
 * when it then ends, the rest is ended too and its exit code is passed on.
 *
 * Descriptor 4 of the agent is a timer on CLOCK_BOOTTIME that is due in 63 years: /proc/self/fdinfo/4 says how long that
 * still is, and so the agent reads the very clock that its deadlines are kept on (Node has no call for it, and
 * /proc/uptime may be another container's or a virtual one).
 *
 *   koschei-init --probe <name> <file>
 *
 * writes to the file once a second and waits until it is durable, as a commit does, and tells each time: `ok <free bytes>`
 * or `failed <errno>`. It is a process of its own because it may sleep uninterruptibly for as long as its disk does.
 *
 * A stopped or stuck agent changes nothing of this, and once the lock is held nothing here waits for a disk, nor for
 * whoever should read the log.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	AGENT_PIPE = 3,	       /* the agent's descriptors */
	AGENT_CLOCK = 4,
	CLOCK_DUE_S = 2000000000, /* known to src/agent/boot-clock.ts */
	FREE_DESCRIPTOR = 10,  /* out of the way of the agent's */
	/*
	 * At the deadline the agent fences by itself; in most cases Postgres is gone by then, and the agent can tell the
	 * others. In all: 200 + 700 + 200 = 1100 ms after the deadline nothing can run; the fence budget, which the agent
	 * has taken off its deadline, is 1500 ms and never below 1200 (src/dcs/schemas.ts).
	 */
	AGENT_FIRST_MS = 200,
	QUIT_GRACE_MS = 700,   /* from SIGQUIT to SIGKILL: most backends die by themselves */
	DOOMED_AFTER_MS = 200, /* from SIGKILL on: who sleeps uninterruptibly after this is left behind */
	LOCK_POLL_MS = 100,
	LOCK_MESSAGE_MS = 2000,
	QUICK_DEATH_MS = 10000, /* an agent that lived shorter makes the next one wait longer, ... */
	MAX_BACKOFF_MS = 5000,	/* ... up to this */
	PROBE_EVERY_MS = 1000,
	PROBE_BYTES = 4096,
	EXIT_INTERNAL = 70,
	EXIT_USAGE = 64,
	EXIT_STOPPED = 128 + SIGTERM,
};

static pid_t agent, postmaster;
static int agent_status;    /* as from waitpid, once the agent has ended */
static long long deadline;  /* ms on CLOCK_BOOTTIME; 0: none */
static int agent_pipe = -1; /* the read end */
static char line[64];	    /* what the agent has written since its last newline */
static size_t line_length;
static int signals, timer, agent_clock;
static int log_output = -1; /* standard output opened anew, not blocking */

static long long now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/*
 * One line of JSON in one write, as the agent logs. `text` holds no quotes and no control characters. Never blocks: when
 * nobody reads, the pipe is full and the line is lost.
 */
static void say(const char *level, const char *text, const char *what, long long number)
{
	struct timespec now;
	char line[512];
	clock_gettime(CLOCK_REALTIME, &now);
	int length = snprintf(line, sizeof line,
			      "{\"level\":\"%s\",\"time\":%lld,\"name\":\"koschei-init\",\"%s\":%lld,\"msg\":\"%s\"}\n", level,
			      now.tv_sec * 1000LL + now.tv_nsec / 1000000, what, number, text);
	ssize_t written;
	if (log_output >= 0)
		written = write(log_output, line, length);
	else /* a socket cannot be opened anew; where this flag is not known, the line is lost, too */
		written = pwritev2(STDOUT_FILENO, &(struct iovec){ .iov_base = line, .iov_len = length }, 1, -1, RWF_NOWAIT);
	if (written < 0)
		return; /* nobody listens; there is nothing better to do */
}

static void die(const char *text)
{
	say("fatal", text, "errno", errno);
	_exit(EXIT_INTERNAL);
}

/* The last stop signal that has come since the last call, or 0. */
static int stop_signal(void)
{
	struct signalfd_siginfo info;
	int stop = 0;
	while (read(signals, &info, sizeof info) == sizeof info)
		if (info.ssi_signo != SIGCHLD)
			stop = (int)info.ssi_signo;
	return stop;
}

/* Makes the lock file and its directory, and waits until no other process holds it. */
static void take_lock(char *path)
{
	char *slash = strrchr(path, '/');
	if (slash != NULL && slash != path) {
		*slash = '\0';
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			die("cannot make the directory of the lock file");
		*slash = '/';
	}
	int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0)
		die("cannot open the lock file");
	for (long long waited = 0; flock(lock, LOCK_EX | LOCK_NB) < 0; waited += LOCK_POLL_MS) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			die("cannot lock the lock file");
		if (waited % LOCK_MESSAGE_MS == 0)
			say("warn", "the volume is in use by another pod; waiting for its lock", "waitedMs", waited);
		if (poll(&(struct pollfd){ .fd = signals, .events = POLLIN }, 1, LOCK_POLL_MS) > 0 && stop_signal() != 0)
			_exit(EXIT_STOPPED);
	}
}

static void reap(void)
{
	int status;
	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
		if (pid != agent)
			continue;
		agent = 0;
		agent_status = status;
	}
}

/* Takes one line of the agent; what is not understood is ignored. */
static void obey(const char *text)
{
	long long number;
	char rest;
	if (sscanf(text, "postmaster %lld%c", &number, &rest) == 1 && number >= 0 && number != 1 && number <= 1 << 22)
		postmaster = (pid_t)number;
	else if (sscanf(text, "deadline %lld%c", &number, &rest) == 1 && number >= 0)
		deadline = number;
	else
		say("warn", "ignored a line of the agent", "length", (long long)strlen(text));
}

/* Reads what is there, but not for ever: an agent that writes without end must not keep us from its deadline. */
static void read_agent(void)
{
	char buffer[4096];
	ssize_t count = 0;
	for (int turn = 0; turn < 16 && agent_pipe >= 0 && (count = read(agent_pipe, buffer, sizeof buffer)) > 0; turn++) {
		for (ssize_t i = 0; i < count; i++) {
			if (buffer[i] != '\n') {
				/* The last byte of a line that is too long is overwritten; such a line is never valid. */
				line[line_length] = buffer[i];
				line_length += line_length < sizeof line - 1;
				continue;
			}
			line[line_length] = '\0';
			obey(line_length == sizeof line - 1 ? "" : line);
			line_length = 0;
		}
	}
	if (agent_pipe >= 0 && count == 0) { /* closed; whether the agent has ended is another matter */
		close(agent_pipe);
		agent_pipe = -1;
	}
}

/* Waits for a signal, a line of the agent or a time on CLOCK_BOOTTIME (0: none). Returns a stop signal or 0. */
static int wait_for_event(long long until)
{
	struct itimerspec at = { .it_value = { .tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000 } };
	struct pollfd events[] = { { .fd = signals, .events = POLLIN },
				   { .fd = timer, .events = POLLIN },
				   { .fd = agent_pipe, .events = POLLIN } };
	timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
	poll(events, 3, -1);
	read_agent();
	reap();
	return stop_signal();
}

/* Is there a process, other than this one, that may still run? Uninterruptible sleepers have SIGKILL pending. */
static bool somebody_runs(void)
{
	DIR *proc = opendir("/proc");
	bool found = false;
	if (proc == NULL)
		return true;
	for (struct dirent *entry; !found && (entry = readdir(proc)) != NULL;) {
		char path[64], stat[512];
		if (!isdigit((unsigned char)entry->d_name[0]) || atoi(entry->d_name) == getpid())
			continue;
		snprintf(path, sizeof path, "/proc/%.20s/stat", entry->d_name);
		int file = open(path, O_RDONLY | O_CLOEXEC);
		if (file < 0)
			continue;
		ssize_t count = read(file, stat, sizeof stat - 1);
		close(file);
		stat[count > 0 ? count : 0] = '\0';
		char *state = strrchr(stat, ')'); /* the name before may hold anything */
		found = state != NULL && strchr("ZXD", state[2]) == NULL;
	}
	closedir(proc);
	return found;
}

/* Ends every process but this one. Only ever as process 1: anywhere else it would end the whole machine. */
static void fence(void)
{
	long long begin = now_ms(), kill_begin;
	if (getpid() != 1) {
		say("fatal", "would have to fence, but is not process 1", "pid", getpid());
		_exit(EXIT_INTERNAL);
	}
	if (postmaster > 1 && kill(postmaster, SIGQUIT) == 0)
		/* It ends after its children. With a stopped agent as parent it stays a zombie for the whole time. */
		while (now_ms() - begin < QUIT_GRACE_MS && kill(postmaster, 0) == 0) {
			poll(NULL, 0, 5);
			reap();
		}
	kill_begin = now_ms();
	/* In a PID namespace, -1 means all of it but process 1. */
	while (kill(-1, SIGKILL) == 0) {
		poll(NULL, 0, 2);
		reap();
		if (now_ms() - kill_begin > DOOMED_AFTER_MS && !somebody_runs()) {
			say("error", "left behind processes in uninterruptible sleep: the disk is stalled", "ms", now_ms() - begin);
			break;
		}
	}
	reap();
	say("info", "no other process can run", "ms", now_ms() - begin);
	agent = postmaster = 0;
	deadline = 0;
}

static void start_agent(char **command, int boot)
{
	int ends[2];
	char number[16];
	if (agent_pipe >= 0)
		close(agent_pipe);
	if (pipe2(ends, O_CLOEXEC) < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0)
		die("cannot make a pipe");
	agent_pipe = ends[0];
	line_length = 0;
	agent = fork();
	if (agent < 0)
		die("cannot fork");
	if (agent > 0) {
		close(ends[1]);
		say("info", "started the agent", "boot", boot);
		return;
	}
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	snprintf(number, sizeof number, "%d", boot);
	setenv("KOSCHEI_BOOT", number, 1);
	/* Node does everything with files in as many threads, 4 by default; each may be stuck in a disk that is stalled. */
	setenv("UV_THREADPOOL_SIZE", "16", 1);
	snprintf(number, sizeof number, "%d", AGENT_CLOCK);
	setenv("KOSCHEI_CLOCK", number, 1);
	if (ends[1] == AGENT_PIPE ? fcntl(AGENT_PIPE, F_SETFD, 0) < 0 : dup2(ends[1], AGENT_PIPE) < 0)
		die("cannot give the agent its pipe");
	if (dup2(agent_clock, AGENT_CLOCK) < 0)
		die("cannot give the agent its clock");
	execvp(command[0], command);
	die("cannot execute the agent");
}

static void prepare_signals(void)
{
	sigset_t handled;
	sigemptyset(&handled);
	sigaddset(&handled, SIGCHLD);
	sigaddset(&handled, SIGTERM);
	sigaddset(&handled, SIGINT);
	sigprocmask(SIG_BLOCK, &handled, NULL);
	signal(SIGPIPE, SIG_IGN);
	signals = signalfd(-1, &handled, SFD_NONBLOCK | SFD_CLOEXEC);
	timer = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	if (signals < 0 || timer < 0)
		die("cannot make a signalfd and a timerfd");
}

/*
 * The agent has the standard output too, so its mode is left alone: the flag would be on both. A description of our own
 * has a mode of its own.
 */
static void prepare_log(void)
{
	int output = open("/proc/self/fd/1", O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (output < 0)
		return;
	log_output = fcntl(output, F_DUPFD_CLOEXEC, FREE_DESCRIPTOR);
	close(output);
}

static void prepare_clock(void)
{
	struct itimerspec due = { .it_value = { .tv_sec = CLOCK_DUE_S } };
	int clock = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC);
	if (clock < 0 || timerfd_settime(clock, TFD_TIMER_ABSTIME, &due, NULL) < 0 ||
	    (agent_clock = fcntl(clock, F_DUPFD_CLOEXEC, FREE_DESCRIPTOR)) < 0)
		die("cannot make a clock for the agent");
	close(clock);
}

/* 0, or the errno of what failed. What was allocated before is written over: a commit needs no more of the disk. */
static int write_durably(const char *path)
{
	static char content[PROBE_BYTES];
	int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), error = 0;
	if (file < 0)
		return errno;
	memset(content, content[0] + 1, sizeof content);
	ssize_t written = pwrite(file, content, sizeof content, 0);
	if (written != sizeof content)
		error = written < 0 ? errno : ENOSPC;
	else if (fdatasync(file) < 0)
		error = errno;
	close(file);
	return error;
}

/* Tells how the volume does until nobody listens any more. */
static int probe(const char *name, const char *path)
{
	prctl(PR_SET_NAME, name);
	/* Not left behind by an agent that is killed. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	for (;; poll(NULL, 0, PROBE_EVERY_MS)) {
		int error = write_durably(path);
		struct statvfs volume;
		char text[64];
		/* A full disk is not a dead one: Postgres itself finds out what it needs. */
		if (error == ENOSPC || error == EDQUOT)
			error = 0;
		unsigned long long room = error == 0 && statvfs(path, &volume) == 0
						  ? (unsigned long long)volume.f_bavail * volume.f_frsize
						  : 0;
		int length = error == 0 ? snprintf(text, sizeof text, "ok %llu\n", room)
					: snprintf(text, sizeof text, "failed %d\n", error);
		if (write(STDOUT_FILENO, text, length) < 0)
			return 0;
	}
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "--probe") == 0)
		return probe(argv[2], argv[3]);
	if (argc < 5 || strcmp(argv[1], "--lock") != 0 || strcmp(argv[3], "--") != 0) {
		fprintf(stderr, "usage: koschei-init --lock <file> -- <agent> <arguments...>\n");
		return EXIT_USAGE;
	}
	umask(0077);
	prepare_log();
	prepare_signals();
	prepare_clock();
	take_lock(argv[2]);

	int stop = 0;
	long long backoff = 0;
	for (int boot = 1;; boot++) {
		long long started = now_ms();
		start_agent(argv + 4, boot);
		while (agent > 0 && (deadline == 0 || now_ms() < deadline + AGENT_FIRST_MS)) {
			int now = wait_for_event(deadline == 0 ? 0 : deadline + AGENT_FIRST_MS);
			if (now != 0 && agent > 0)
				kill(agent, stop = now);
		}
		read_agent(); /* its last words may name a postmaster */
		bool ended = agent == 0;
		if (ended)
			say("warn", "the agent has ended", "waitStatus", agent_status);
		else
			say("warn", "the deadline is reached, and the agent did not fence", "msLate", now_ms() - deadline);
		/* Even without a postmaster there may be programs that the agent ran on the volume. */
		fence();
		if (stop != 0)
			return ended && WIFEXITED(agent_status) ? WEXITSTATUS(agent_status) : EXIT_STOPPED;
		backoff = !ended || now_ms() - started > QUICK_DEATH_MS ? 0 : backoff == 0 ? 100 : backoff * 2;
		if (backoff > MAX_BACKOFF_MS)
			backoff = MAX_BACKOFF_MS;
		for (long long until = now_ms() + backoff; now_ms() < until;)
			if (wait_for_event(until) != 0)
				return EXIT_STOPPED;
	}
}
