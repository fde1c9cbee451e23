/*
 * One primary while the agent changes `synchronous_standby_names`: who releases a waiting commit, when every process
 * loads the setting on its own. As in Postgres's syncrep.c: a walsender releases only if it is itself among the first n
 * of those that have a priority, n being the number of names in the list that *it* has loaded, the priorities those that
 * each has from the list that *it* has loaded; and commits wait at all only if the checkpointer has loaded a list.
 *
 * Three standbys. The lists, and the agent's steps between them, are in case.h: they are what `planSyncSet` of
 * src/agent/ha/sync-set.ts says for a cluster in this situation (sync-steps.ts plays it), so the shipped code is what is
 * searched. A gated step is one that the code takes only when every walsender shows the priorities of the present list.
 *
 * The postmaster loads the setting before it starts another process, and a walsender that was being started meanwhile loads
 * it before it reads its first confirmation (postmaster.c and walsender.c). POSTMASTER_LATE shows that this is needed.
 *
 * Checked: no acknowledged commit lacks a standby that etcd names.
 */
#include "case.h"

#ifndef RECORDS
#define RECORDS 2
#endif
#define BIT(x) (1 << (x))

/* kinds of steps */
#define NAMES 1
#define GATEDNAMES 2
#define PROVE 3
#define STORE 4
#define CONFIRM 5

byte place[LISTS * 3], number[LISTS]; /* of each list: the priority of each standby, and n */
byte what[STEPS], with[STEPS], joins[STEPS];

byte written, flushed[3], released, acked;
byte loaded[3], checkpointer; /* the list that each process has loaded */
bit away[3], first01, first02, first12; /* who has the lower slot decides between equal priorities */
byte list, step, phase, target, named = NAMED;

#define RANKED(x) (away[x] -> 0 : place[3 * loaded[x] + (x)])
#define BEFORE(y, x, tie) (RANKED(y) > 0 && (RANKED(y) < RANKED(x) || (RANKED(y) == RANKED(x) && (tie))))
#define RANK0 (BEFORE(1, 0, !first01) + BEFORE(2, 0, !first02))
#define RANK1 (BEFORE(0, 1, first01) + BEFORE(2, 1, !first12))
#define RANK2 (BEFORE(0, 2, first02) + BEFORE(1, 2, first12))
#define COUNT ((RANKED(0) > 0) + (RANKED(1) > 0) + (RANKED(2) > 0))
#define CHOSEN(x, rank, n) (RANKED(x) > 0 && (rank) < (n))
#define HAS(x, rank, n, upto) (!CHOSEN(x, rank, n) || flushed[x] >= (upto))
#define ALLHAVE(n, upto) (HAS(0, RANK0, n, upto) && HAS(1, RANK1, n, upto) && HAS(2, RANK2, n, upto))
/* world: SyncRepReleaseWaiters */
#define RELEASES(w, rank) \
  :: d_step { RANKED(w) > 0 && COUNT >= number[loaded[w]] && CHOSEN(w, rank, number[loaded[w]]) && released < written && ALLHAVE(number[loaded[w]], released + 1) -> \
       released++; printf("walsender %d (list %d) releases commit %d\n", w, loaded[w], released) }

#define NAMEDHAVE assert((!(named & 1) || flushed[0] >= acked) && (!(named & 2) || flushed[1] >= acked) && (!(named & 4) || flushed[2] >= acked))
#define SHOWS(x) (away[x] || place[3 * loaded[x] + (x)] == place[3 * list + (x)])
#ifdef ONLY_JOINERS_AWAITED
#define SETTLED ((!(joins[step] & 1) || SHOWS(0)) && (!(joins[step] & 2) || SHOWS(1)) && (!(joins[step] & 4) || SHOWS(2)))
#else
#define SETTLED (SHOWS(0) && SHOWS(1) && SHOWS(2))
#endif
#ifdef NOT_GATED
#define MAYCHANGE 1
#else
#define MAYCHANGE (what[step] == NAMES || SETTLED)
#endif
#define REACHED(x) (!(joins[step] & BIT(x)) || (!away[x] && flushed[x] >= target))

#ifdef POSTMASTER_LATE
byte master;
#define MASTERS master
#else
#define MASTERS list
#endif

#define PROCESS(x) \
  /* world: a standby flushes and confirms */ \
  :: d_step { !away[x] && flushed[x] < written -> flushed[x]++; printf("standby %d has commit %d\n", x, flushed[x]) } \
  /* world: a walsender loads the settings */ \
  :: d_step { !away[x] && loaded[x] != list -> loaded[x] = list; printf("walsender %d loads list %d\n", x, list) } \
  /* world: a connection ends */ \
  :: d_step { !away[x] -> away[x] = 1; loaded[x] = 0; printf("walsender %d ends\n", x) } \
  /* world: a walsender starts with what the postmaster has loaded */ \
  :: d_step { away[x] -> away[x] = 0; loaded[x] = MASTERS; printf("walsender %d starts with list %d\n", x, MASTERS) }

init {
  d_step { SETUP }
  if :: first01 = 0 :: first01 = 1 fi;
  if :: first02 = 0 :: first02 = 1 fi;
  if :: first12 = 0 :: first12 = 1 fi;
  do
  /* world: a client commits */
  :: d_step { written < RECORDS -> written++; printf("commit %d is written\n", written) }
  PROCESS(0) PROCESS(1) PROCESS(2)
  RELEASES(0, RANK0) RELEASES(1, RANK1) RELEASES(2, RANK2)
#ifdef POSTMASTER_LATE
  /* world: the postmaster loads the settings */
  :: d_step { master != list -> master = list }
#endif
  /* world: the checkpointer loads the settings */
  :: d_step { checkpointer != list -> checkpointer = list; printf("the checkpointer loads list %d\n", list) }
  /* world: what was released is acknowledged */
  :: d_step { acked < released -> acked++; printf("ACKNOWLEDGED: commit %d\n", acked); NAMEDHAVE }
  /* world: what need not wait is acknowledged */
  :: d_step { number[checkpointer] == 0 && acked < written -> acked = written; if :: released < acked -> released = acked :: else fi; printf("ACKNOWLEDGED without waiting: commit %d\n", acked); NAMEDHAVE }

  /* code: planSyncSet, changeOver, isSafeChange, isSettled */
  :: d_step { step < STEPS && (what[step] == NAMES || what[step] == GATEDNAMES) && MAYCHANGE -> list = with[step]; step++; printf("-- the agent sets list %d\n", list) }
  /* code: planSyncSet: prove-wait */
  :: d_step { step < STEPS && what[step] == PROVE && number[checkpointer] > 0 -> step++; printf("-- the agent sees a commit wait\n") }
  /* code: planSyncSet: a name leaves, or the mode changes */
  :: d_step { step < STEPS && what[step] == STORE -> named = with[step]; step++; printf("-- the agent writes sync: mask %d\n", named); NAMEDHAVE }
  /* code: confirm, isSettled: every walsender shows the list */
  :: d_step { step < STEPS && what[step] == CONFIRM && phase == 0 && SETTLED -> phase = 1; printf("-- the agent sees every walsender with list %d\n", list) }
  /* code: confirm: then the flush position is read */
  :: d_step { step < STEPS && what[step] == CONFIRM && phase == 1 && SETTLED -> phase = 2; target = written; printf("-- the agent reads the position: %d\n", target) }
  /* code: confirm: one shows another list: nothing that was seen counts */
  :: d_step { step < STEPS && what[step] == CONFIRM && phase > 0 && !SETTLED -> phase = 0; target = 0 }
  /* code: confirm: the new ones have reached it */
  :: d_step { step < STEPS && what[step] == CONFIRM && phase == 2 && SETTLED && REACHED(0) && REACHED(1) && REACHED(2) -> named = with[step]; phase = 0; target = 0; step++;
       printf("-- the agent writes sync: mask %d\n", named); NAMEDHAVE }
#ifdef POSITION_FIRST
  /* broken: the position is read before the walsenders have been seen */
  :: d_step { step < STEPS && what[step] == CONFIRM && phase == 0 -> phase = 2; target = written; printf("-- the agent reads the position: %d\n", target) }
#endif
  od
}
