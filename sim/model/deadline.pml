/*
 * Leadership by deadline, in discrete time: heartbeats, lists of those who may stand, hand-over, restarts, failsafe (R11).
 *
 * Three instances, one write of the leader key outstanding each (R1) and one abandoned write that may still land, also
 * after a restart. etcd compares revisions exactly: every successful write makes every other compared revision stale.
 * `eligible` is who may stand besides the holder: the names in `sync`, or with mode async the members that the leader
 * has listed; a leader changes it only together with a rewrite of its key.
 *
 * One tick is a unit of time in which anything may happen any number of times. An observer waits TTL ticks; a deadline
 * is GRACE ticks after sending. The clock cannot pass the deadline of a running primary that is not frozen: the agent,
 * or koschei-init, fences in time.
 *
 *   default   a takeover waits for TTL (async, or `fencing: strict`). Checked: never two running primaries.
 *   FAST      a takeover may come at any moment, promise or not (`fencing: fast` with a synchronous set); no time.
 *             Two primaries may run at once; what the old one can acknowledge is agreement.pml's matter. Checked: no
 *             round of promises that was begun after a newer primary was promoted ever moves a deadline, so the old
 *             primary ends, and stale reads with it, less than a ttl after the promotion.
 *
 * Features: FAILSAFE, LISTS=n (the list changes n times), VACATE (hand-over), RESTART, FREEZE. Every other define breaks a rule.
 * Above each action stands the code that it stands for, or `world` for what nobody decides.
 */
#ifndef TERMS
#define TERMS 2
#endif
#define TTL 2
#ifdef NO_MARGIN
#define GRACE 2
#else
#define GRACE 1
#endif
#define NOROUND 9
#define ALL 7
#define BIT(x) (1 << (x))

/* Writes of the leader key, and what becomes of the one that is outstanding. */
#define BEAT 1
#define HANDOVER 2
#define TAKE 3
#define RESUME 4
#define SENT 1
#define DONE 2
#define REFUSED 3
#define STILLMINE 4

/* etcd */
byte holder, term = 1, eligible = ELIGIBLE;
bit vacated, thisBoot = 1; /* thisBoot: the holder's present boot wrote the key */

/* what each agent believes of its own leadership */
byte led[3], made[3], open[3]; /* term led; term promoted in; ticks since the sending of what the deadline counts from */
bit primary[3], barrier[3], current[3]; /* current: the revision it wrote last is still the key's */
byte list[3], possible[3]; /* eligible, as last known for certain; what unanswered writes may have made of it */

/* writes */
byte kind[3], fate[3], carried[3], age[3], wonTerm[3];
bit valid[3];
byte lateKind[3], lateList[3];
bit lateBoot[3];

/* observers */
byte seen[3], known[3], promise[3];
bit news[3];

#ifdef LISTS
byte changes;
#endif
/* rounds of promises */
byte asked[3], need[3], got[3];
bit tooLate[3];

#ifdef FREEZE
bit frozen[3];
#define AWAKE(i) (!frozen[i])
#else
#define AWAKE(i) 1
#endif

#define RUNS(i) (primary[i] && AWAKE(i))
#ifdef FAST
#define ATMOSTONE skip
#define SUSPECT(i) 1
#define NOTOPEN 0
#else
#define NOTOPEN GRACE
#define ATMOSTONE assert(RUNS(0) + RUNS(1) + RUNS(2) <= 1)
#define SUSPECT(i) (vacated || seen[i] >= TTL)
#endif

#define WROTE \
  current[0] = 0; current[1] = 0; current[2] = 0; valid[0] = 0; valid[1] = 0; valid[2] = 0; \
  lateKind[0] = 0; lateKind[1] = 0; lateKind[2] = 0; lateList[0] = 0; lateList[1] = 0; lateList[2] = 0; \
  lateBoot[0] = 0; lateBoot[1] = 0; lateBoot[2] = 0; news[0] = 1; news[1] = 1; news[2] = 1

#define LAND(i, what, names, boot) \
  if \
  :: what == BEAT -> eligible = names; vacated = 0 \
  :: what == HANDOVER -> vacated = 1 \
  :: what == TAKE -> eligible = (eligible | BIT(holder)) & ~BIT(i) & ALL; holder = i; term++; vacated = 0 \
  :: what == RESUME -> vacated = 0 \
  fi; \
  thisBoot = boot; WROTE

#define ENDREIGN(i) \
  led[i] = 0; barrier[i] = 0; current[i] = 0; list[i] = 0; possible[i] = 0; \
  asked[i] = NOROUND; need[i] = 0; got[i] = 0; tooLate[i] = 0

#define NOWRITE(i) kind[i] = 0; fate[i] = 0; carried[i] = 0; age[i] = 0; valid[i] = 0; wonTerm[i] = 0
#define EARLIER(a, b) if :: b < a -> a = b :: else fi

#ifdef TAKE_NOT_COMPARED
#define MATCHES(i) (valid[i] || kind[i] == TAKE)
#else
#define MATCHES(i) valid[i]
#endif
#ifdef NO_BARRIER
#define CERTAIN(i) 1
#else
#define CERTAIN(i) (!barrier[i])
#endif
#if defined(FAST) || defined(PROMISE_NOT_KEPT)
#define FREE(i) 1
#define KEEP(x)
#else
#define FREE(i) (promise[i] == 0 || vacated)
#define KEEP(x) promise[x] = TTL;
#endif
#ifdef UNLISTED_STANDS
#define MAYSTAND(i) 1
#else
#define MAYSTAND(i) (eligible & BIT(i))
#endif
/* Who is asked. */
#ifdef ASK_ONLY_WHAT_IS_CERTAIN
#define ASKED(i) list[i]
#else
#define ASKED(i) (list[i] | possible[i])
#endif
#ifdef ASK_SOME
#define ENOUGH(i) (need[i] == 0 || got[i] != 0)
#else
#define ENOUGH(i) ((got[i] & need[i]) == need[i])
#endif
#ifdef PROMISE_TO_ANY_TERM
#define FOLLOWS(x, i) 1
#else
#define FOLLOWS(x, i) (known[x] == led[i])
#endif
#ifdef PROMISE_WHILE_LEADING
#define NOTLEADING(x) 1
#else
#define NOTLEADING(x) (led[x] == 0 && !primary[x])
#endif
#ifdef REFUSE_WHILE_TAKING
#define NOTTAKING(x) (kind[x] != TAKE && lateKind[x] != TAKE)
#else
#define NOTTAKING(x) 1
#endif
#ifdef BOOT_IS_SILENCE
#define SEENATBOOT TTL
#else
#define SEENATBOOT 0
#endif
#ifdef START_PAST_DEADLINE
#define INTIME(i) 1
#else
#define INTIME(i) (open[i] < GRACE)
#endif

/* ---- actions that name a second instance ---- */
#ifdef LISTS
/* code: tendSyncSet, memberList, rewrite: another list goes with a rewrite of the key */
#define CHANGELIST(i, x) \
  :: d_step { x != i && AWAKE(i) && led[i] && led[i] < TERMS && changes < LISTS && CERTAIN(i) && kind[i] == 0 -> printf("%d writes its key with %d put on or off the list\n", i, x); \
       changes++; kind[i] = BEAT; fate[i] = SENT; valid[i] = current[i]; carried[i] = list[i] ^ BIT(x); possible[i] = possible[i] | carried[i] }
#else
#define CHANGELIST(i, x)
#endif
#ifdef FAILSAFE
/* code: givePromise, whyNot, hasPromised (R11) */
#define PROMISE(x, i) \
  :: d_step { x != i && AWAKE(x) && asked[i] != NOROUND && (need[i] & BIT(x)) && !(got[i] & BIT(x)) && FOLLOWS(x, i) && NOTLEADING(x) && NOTTAKING(x) -> \
       printf("%d promises %d not to stand for a ttl\n", x, i); KEEP(x) got[i] = got[i] | BIT(x) }
#else
#define PROMISE(x, i)
#endif

#define NEWER(i) ((made[0] > made[i]) || (made[1] > made[i]) || (made[2] > made[i]))

proctype instance(byte i) {
  do
  /* code: heartbeat, rewrite */
  :: d_step { AWAKE(i) && led[i] && kind[i] == 0 -> printf("%d sends a heartbeat\n", i);
       kind[i] = BEAT; fate[i] = SENT; valid[i] = current[i]; carried[i] = list[i]; possible[i] = possible[i] | carried[i] }
  CHANGELIST(i, 0) CHANGELIST(i, 1) CHANGELIST(i, 2)

  /* world: etcd carries a write out, or refuses it */
  :: d_step { fate[i] == SENT ->
       if
       :: MATCHES(i) -> printf("etcd carries out write %d of %d\n", kind[i], i); LAND(i, kind[i], carried[i], 1);
            fate[i] = DONE; valid[i] = 1; carried[i] = eligible; wonTerm[i] = term
       :: else -> valid[i] = 1;
            if
            :: holder == i && thisBoot && !vacated -> fate[i] = STILLMINE; carried[i] = eligible
            :: else -> fate[i] = REFUSED; carried[i] = 0
            fi
       fi }
  /* code: absorbTransaction, won: the deadline counts from the sending */
  :: d_step { AWAKE(i) && fate[i] == DONE -> printf("%d hears that write %d was done\n", i, kind[i]);
       if
       :: kind[i] == HANDOVER -> ENDREIGN(i)
       :: (kind[i] == TAKE || kind[i] == RESUME) -> led[i] = wonTerm[i]; known[i] = wonTerm[i]; open[i] = NOTOPEN
       :: else
       fi;
       if
       :: kind[i] != HANDOVER && led[i] -> barrier[i] = 0; current[i] = valid[i]; list[i] = carried[i]; possible[i] = 0;
#ifdef DEADLINE_FROM_ANSWER
            open[i] = 0
#else
            EARLIER(open[i], age[i])
#endif
       :: else
       fi;
       NOWRITE(i) }
  /* code: absorbTransaction: refused, by a write of this boot that was given up */
  :: d_step { AWAKE(i) && fate[i] == STILLMINE -> printf("%d is refused, but an older write of its own has landed\n", i);
       if :: led[i] -> barrier[i] = 1; current[i] = valid[i]; list[i] = carried[i]; possible[i] = 0 :: else fi; NOWRITE(i) }
  /* code: absorbTransaction, endReign: refused */
  :: d_step { AWAKE(i) && fate[i] == REFUSED -> printf("%d is refused\n", i);
       if :: led[i] -> ENDREIGN(i) :: else fi; NOWRITE(i) }
  /* code: absorbTransaction: no definite answer, and it may land later */
  :: d_step { AWAKE(i) && fate[i] == SENT && valid[i] && lateKind[i] == 0 -> printf("%d gives write %d up, which may land later\n", i, kind[i]);
       lateKind[i] = kind[i]; lateList[i] = carried[i]; lateBoot[i] = 1; if :: led[i] -> barrier[i] = 1 :: else fi; NOWRITE(i) }
  /* code: absorbTransaction: no definite answer */
  :: d_step { AWAKE(i) && kind[i] != 0 -> printf("%d has no answer to write %d\n", i, kind[i]);
       if :: led[i] -> barrier[i] = 1 :: else fi; NOWRITE(i) }
  /* world: a write that was given up lands */
  :: d_step { lateKind[i] != 0 -> printf("write %d of %d lands late\n", lateKind[i], i);
       LAND(i, lateKind[i], lateList[i], lateBoot[i]) }

  /* code: observeLeader */
  :: d_step { AWAKE(i) && news[i] -> printf("%d sees the leader key: %d leads term %d\n", i, holder, term);
       news[i] = 0; seen[i] = 0; known[i] = term }
  /* code: eligibility, openReason, takeOver, takeWrite */
  :: d_step { AWAKE(i) && !led[i] && !primary[i] && kind[i] == 0 && holder != i && !news[i] && known[i] == term && MAYSTAND(i) && SUSPECT(i) && FREE(i) && term < TERMS ->
       printf("%d stands: takes the key\n", i); kind[i] = TAKE; fate[i] = SENT; valid[i] = 1 }
  /* code: resume (R2, R10): this data directory led last */
  :: d_step { AWAKE(i) && !led[i] && kind[i] == 0 && holder == i && !news[i] && known[i] == term ->
#ifdef RESUME_BY_READING
       printf("%d reads that it leads\n", i); led[i] = term; open[i] = 0; current[i] = 1; list[i] = eligible
#else
       printf("%d led last: takes the key again\n", i); kind[i] = RESUME; fate[i] = SENT; valid[i] = 1
#endif
     }
  /* code: promote, lead (R5) */
  :: d_step { AWAKE(i) && led[i] && led[i] != made[i] && !primary[i] && CERTAIN(i) && INTIME(i) && kind[i] != HANDOVER ->
       printf("%d is promoted in term %d\n", i, led[i]); primary[i] = 1; made[i] = led[i]; ATMOSTONE }
  /* code: lead, startAgain (R10): Postgres starts again in place */
  :: d_step { AWAKE(i) && led[i] && led[i] == made[i] && !primary[i] && CERTAIN(i) && INTIME(i) && kind[i] != HANDOVER ->
       printf("%d starts as primary again, term %d\n", i, led[i]); primary[i] = 1; ATMOSTONE }
  /* code: fenceIfDue: or Postgres ends by itself */
  :: d_step { AWAKE(i) && primary[i] -> printf("%d: Postgres ends\n", i); primary[i] = 0; asked[i] = NOROUND; need[i] = 0; got[i] = 0; tooLate[i] = 0 }
#ifdef VACATE
  /* code: continueHandover, afterCrash */
  :: d_step { AWAKE(i) && led[i] && led[i] == made[i] && !primary[i] && kind[i] == 0 && CERTAIN(i) -> printf("%d is down, hands over\n", i);
       kind[i] = HANDOVER; fate[i] = SENT; valid[i] = current[i] }
#ifdef WAY_BACK_BY_READING
  /* broken: a look at etcd instead of a new write */
  :: d_step { AWAKE(i) && led[i] && barrier[i] && holder == i && !vacated -> printf("%d reads that it still leads\n", i); barrier[i] = 0; open[i] = 0 }
#endif
#endif
#ifdef FAILSAFE
  /* code: promisesToAsk, whoMustPromise (R11): all who may stand, as far as this leader can know */
  :: d_step { AWAKE(i) && primary[i] && led[i] == made[i] && led[i] && led[i] < TERMS && asked[i] == NOROUND -> printf("%d asks for promises\n", i);
       asked[i] = 0; need[i] = ASKED(i); got[i] = 0; tooLate[i] = NEWER(i) }
  PROMISE(0, i) PROMISE(1, i) PROMISE(2, i)
  /* code: extendByPromises (R11): the deadline counts from before the questions */
  :: d_step { AWAKE(i) && asked[i] != NOROUND && ENOUGH(i) -> printf("%d has every promise: its deadline moves\n", i);
#ifdef FAST
       assert(!tooLate[i]);
#endif
#ifdef DEADLINE_FROM_PROMISES
       open[i] = 0;
#else
       EARLIER(open[i], asked[i]);
#endif
       asked[i] = NOROUND; need[i] = 0; got[i] = 0; tooLate[i] = 0 }
  /* code: extendByPromises (R11): a promise is missing */
  :: d_step { asked[i] != NOROUND -> asked[i] = NOROUND; need[i] = 0; got[i] = 0; tooLate[i] = 0 }
#endif
#ifdef RESTART
  /* world: the pod, or the agent and with it Postgres, starts anew; promises are forgotten */
  :: d_step { led[i] || primary[i] || kind[i] || promise[i] -> printf("%d is started anew\n", i); primary[i] = 0;
       if :: fate[i] == SENT && valid[i] -> lateKind[i] = kind[i]; lateList[i] = carried[i] :: else fi;
       lateBoot[i] = 0; if :: holder == i -> thisBoot = 0 :: else fi;
       ENDREIGN(i); NOWRITE(i); open[i] = NOTOPEN; seen[i] = SEENATBOOT; known[i] = 0; news[i] = 1; promise[i] = 0
#ifdef BOOT_IS_SILENCE
       ; known[i] = term; news[i] = 0
#endif
     }
#endif
#ifdef FREEZE
  /* world: a machine stands still */
  :: d_step { !frozen[i] && primary[i] -> printf("%d is frozen\n", i); frozen[i] = 1 }
  /* world: and goes on */
  :: d_step { frozen[i] -> printf("%d thaws\n", i); frozen[i] = 0; ATMOSTONE }
#endif
  od
}

#define UP(x, most) if :: x < most -> x++ :: else fi
#define DOWN(x) if :: x > 0 -> x-- :: else fi
#define AGES(i) \
  UP(open[i], GRACE); UP(seen[i], TTL); DOWN(promise[i]); \
  if :: kind[i] -> UP(age[i], GRACE) :: else fi; \
  if :: asked[i] != NOROUND -> UP(asked[i], GRACE) :: else fi
#define OVERDUE(i) (primary[i] && open[i] >= GRACE && AWAKE(i))

proctype clock() {
  do
  /* world: time passes, but nobody runs past a deadline (fenceDeadline) */
  :: d_step { !OVERDUE(0) && !OVERDUE(1) && !OVERDUE(2) -> printf("-- tick\n"); AGES(0); AGES(1); AGES(2) }
  od
}

init {
  d_step {
    primary[0] = 1; led[0] = 1; made[0] = 1; current[0] = 1; list[0] = eligible;
    known[0] = 1; known[1] = 1; known[2] = 1; open[1] = NOTOPEN; open[2] = NOTOPEN;
    asked[0] = NOROUND; asked[1] = NOROUND; asked[2] = NOROUND
  }
  atomic {
    run instance(0); run instance(1); run instance(2);
#ifndef FAST
    run clock()
#endif
  }
}
