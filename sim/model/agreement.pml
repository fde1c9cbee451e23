/*
 * Who may acknowledge what: the protocol of the synchronous set, without time. Suspicion, partition, delay and pause are
 * all "what could happen does not happen for a while", so nothing here leans on a clock, on a ttl or on failsafe.
 *
 * Three instances. etcd is one register with an exact comparison: every write of the leader key makes everybody else's
 * revision stale, and `sync` is written only together with it (R1). Each agent has one write outstanding and one given up
 * that may still land, also after a restart (LATE). WAL is a list of the terms that its records were written in, two bits
 * each, so two histories can be told apart; the ledger holds what was acknowledged, position by position.
 *
 * Features: PREFERRED (durability), TWO (two synchronous standbys), LATE, HANDOVER, LOSTVOLUME (one is replaced by an old
 * backup or a clone), REWIND (pg_rewind in two steps; what ends between them leaves a torn directory), READS (clients
 * read what a new primary began with), NUMBERS (timeline ids), SNAPSHOT (etcd is put back to an earlier state
 * once; WIPED: to an empty one),
 * LIVENESS (the faults end; somebody must be able to acknowledge). Every other define breaks a rule.
 * Above each action stands the code that it stands for, or `world` for what nobody decides.
 */
#ifndef TERMS
#define TERMS 3
#endif
#ifndef RECORDS
#define RECORDS 2
#endif

#define NOBODY 3
#define ALL 7
#define HOLD 8 /* the placeholder: a name that nobody can confirm */
#define BIT(x) (1 << (x))

/* Postgres */
#define DOWN 0
#define STANDBY 1
#define PRIMARY 2

/* writes of the leader key */
#define TAKE 1
#define SYNC 2
#define HANDOVEROFF 3
#define NEWTERM 4
#define SENT 1
#define DONE 2

#define LENGTH(w) (((w) & 3 -> 1 : 0) + ((w) & 12 -> 1 : 0) + ((w) & 48 -> 1 : 0))
#define AT(w, p) (((w) >> (2 * ((p) - 1))) & 3)
#define FIRST(w, n) ((w) & ((1 << (2 * (n))) - 1))
#define ISPREFIX(a, b) (FIRST(b, LENGTH(a)) == (a))
#define SAME(a, b, p) (AT(a, p) != 0 && AT(a, p) == AT(b, p))
#define COMMON(a, b) (SAME(a, b, 1) -> (SAME(a, b, 2) -> (SAME(a, b, 3) -> 3 : 2) : 1) : 0)

/* etcd */
byte holder, term = 1, named = 2;
bit vacated;
#ifdef SNAPSHOT
byte oldHolder, oldTerm, oldNamed;
bit oldVacated, restored;
#endif

/* Postgres and its data */
byte pg[3], wal[3], tl[3], from[3], require[3];
byte told[9]; /* told[3 * a + b]: how far b has confirmed to a */
bit torn[3], stranger[3]; /* not to be started; under its name, but with another data id than the one that is named */
#ifdef LOSTVOLUME
bit lost;
#endif
#ifdef NUMBERS
byte number[3], used;
#endif
#ifdef READS
byte began[3], heldBy[3];
bit shut[3];
byte shownIn[4]; /* the term in which the record at this position was first shown to somebody */
#endif

/* agents */
byte led[3], sure[3], kind[3], fate[3], carried[3], won[3];
bit current[3], valid[3], barrier[3];
#ifdef LATE
byte lateKind[3], lateNames[3], lateTerm[3];
#define FORGETLATE lateKind[0] = 0; lateKind[1] = 0; lateKind[2] = 0; lateNames[0] = 0; lateNames[1] = 0; lateNames[2] = 0; \
  lateTerm[0] = 0; lateTerm[1] = 0; lateTerm[2] = 0;
#define ANYLATE (lateKind[0] || lateKind[1] || lateKind[2])
#else
#define FORGETLATE
#define ANYLATE 0
#endif
#ifdef COMPARE_HOLDER
/* broken: a write that was given up is not killed by a later one, as only the holder and the term are compared */
#undef FORGETLATE
#define FORGETLATE
#endif

/* the ledger */
byte acked;
#ifdef LITERAL
byte newest;
#endif
byte q;

#ifdef LIVENESS
bit healed;
byte dead;
#define FAULTS (!healed)
#define DEAD(x) (dead & BIT(x))
#define WISH(c) (!healed || (c))
#else
#define FAULTS 1
#define DEAD(x) 0
#define WISH(c) 1
#endif

#define WROTE current[0] = 0; current[1] = 0; current[2] = 0; valid[0] = 0; valid[1] = 0; valid[2] = 0; FORGETLATE
#define NOWRITE(i) kind[i] = 0; fate[i] = 0; carried[i] = 0; valid[i] = 0; won[i] = 0
#define ENDREIGN(i) led[i] = 0; sure[i] = 0; current[i] = 0; barrier[i] = 0
#define NOTTOLD(i) told[3 * (i)] = 0; told[3 * (i) + 1] = 0; told[3 * (i) + 2] = 0
#define ENDPOSTGRES(i) if :: pg[i] == PRIMARY -> NOTTOLD(i); pg[i] = DOWN; CLOSE(i) :: else fi
#ifdef READS
#define CLOSE(i) shut[i] = 0; began[i] = 0; heldBy[i] = NOBODY
#define BEGIN(i) shut[i] = 1; began[i] = LENGTH(wal[i])
#else
#define CLOSE(i) skip
#define BEGIN(i) skip
#endif
#ifdef READS
#define SHOW(i, p) if :: AT(acked, p) == 0 -> shownIn[p] = tl[i] :: else fi
#else
#define SHOW(i, p) skip
#endif
#ifdef TORN_IS_STARTED
#define USABLE(i) (!stranger[i])
#else
#define USABLE(i) (!torn[i] && !stranger[i])
#endif
#define NAMES(s) ((s) == 0 -> HOLD : (s)) /* namesFor */

#ifdef EVERYBODY_IN_SYNC
#define AFTERTAKE(i) (ALL & ~BIT(i))
#else
#define AFTERTAKE(i) ((named | BIT(holder)) & ~BIT(i) & ALL) /* R4, takeWrite */
#endif
#ifdef SAME_TERM
#define NEXTTERM term
#else
#define NEXTTERM term + 1
#endif

/* One write of the leader key, as etcd compares it. */
#ifdef COMPARE_HOLDER
#define MATCHES(i, what, v, t) (v || (what == SYNC && holder == i && term == t))
#else
#define MATCHES(i, what, v, t) (v)
#endif
#define LAND(i, what, names) \
  if \
  :: what == TAKE -> holder = i; term = NEXTTERM; named = names; vacated = 0 \
  :: what == NEWTERM -> term = NEXTTERM; named = names; vacated = 0 \
  :: what == SYNC -> named = names \
  :: what == HANDOVEROFF -> vacated = 1 \
  fi; WROTE

#ifdef NO_BARRIER
#define UNKNOWN(i) skip
#else
#ifdef UNKNOWN_IS_SUCCESS
#define UNKNOWN(i) if :: kind[i] == SYNC -> sure[i] = carried[i] :: else fi
#else
#define UNKNOWN(i) if :: led[i] -> barrier[i] = 1 :: else fi
#endif
#endif
#ifdef NO_BARRIER
#define STALE(i) 0
#else
#define STALE(i) barrier[i]
#endif

/* Everything acknowledged in this term or an earlier one is in the history of a primary of this term. */
#ifdef READS
#define SINCE(p) shownIn[p]
#else
#define SINCE(p) AT(acked, p)
#endif
#define HOLDSAT(i, t, p) assert(!(AT(acked, p) != 0 && SINCE(p) <= t && AT(wal[i], p) != AT(acked, p)))
#define HOLDSALL(i, t) HOLDSAT(i, t, 1); HOLDSAT(i, t, 2); HOLDSAT(i, t, 3); assert(!torn[i])
/* A newer primary that runs has the record at p. */
#define NEWERHAS(x, i, p) assert(!(pg[x] == PRIMARY && tl[x] > tl[i] && AT(wal[x], p) != AT(wal[i], p)))
#define OWNWAITING(i, p) (AT(wal[i], p) == tl[i] && AT(acked, p) != tl[i])
#define CONFIRMED(i, x, p) (!(require[i] & BIT(x)) || told[3 * i + x] >= (p))

#define LEADS(i) (led[i] && kind[i] == 0 && !STALE(i))
#define LEADSPRIMARY(i) (LEADS(i) && led[i] == tl[i] && pg[i] == PRIMARY)

#ifdef TWO
#define ROOM(i) 1
#else
#define ROOM(i) ((require[i] & ALL) == 0)
#endif
#ifdef DROP_BEFORE_ETCD
#define MAYDROP(i, x) 1
#else
#define MAYDROP(i, x) (!(sure[i] & BIT(x)))
#endif
#ifdef JOIN_UNCONFIRMED
#define HASALL(i, x) 1
#else
#define HASALL(i, x) (USABLE(x) && pg[x] == STANDBY && from[x] == i && told[3 * i + x] >= LENGTH(wal[i]) && ISPREFIX(wal[x], wal[i]))
#endif
#ifdef JOIN_ETCD_FIRST
#define REQUIRED(i, x) 1
#else
#define REQUIRED(i, x) (require[i] & BIT(x))
#endif
#ifdef ANYBODY_STANDS
#define MAYSTAND(i) 1
#else
#define MAYSTAND(i) (named & BIT(i))
#endif
#if defined(PROMOTE_TWICE) || defined(SAME_TERM)
#define NEWTOME(i) 1
#else
#define NEWTOME(i) (led[i] > tl[i])
#endif
#ifdef TORN_IS_STARTED
#define STARTS(i) 1
#else
#define STARTS(i) (!torn[i])
#endif
#ifdef LATER_TERMS_KNOWN
#define NOTBEHIND(i) (term >= tl[i]) /* code: olderThanKnown */
#else
#define NOTBEHIND(i) 1
#endif
#ifdef REWIND_TO_OLDER
#define NOTOLDER(i, x) 1
#else
#define NOTOLDER(i, x) (tl[x] >= tl[i])
#endif

#ifdef OPENS_AT_ONCE
#define READABLE(i, x) 1
#else
#define READABLE(i, x) (!(sure[i] & BIT(x)) || x == i || heldBy[i] == x || told[3 * i + x] >= began[i])
#endif

/* ---- actions that name a second instance ---- */
/* code: planSyncSet, tendSyncSet (R3, R8) */
#define ADDNAME(i, x) \
  :: d_step { x != i && LEADSPRIMARY(i) && !(require[i] & BIT(x)) && ROOM(i) && WISH(!DEAD(x) && SHORT(i)) -> \
       printf("%d requires %d, too\n", i, x); require[i] = (require[i] | BIT(x)) & ALL }
/* code: planSyncSet, tendSyncSet (R3) */
#define DROPNAME(i, x) \
  :: d_step { x != i && LEADSPRIMARY(i) && (require[i] & BIT(x)) && MAYDROP(i, x) -> \
       printf("%d requires %d no longer\n", i, x); require[i] = NAMES(require[i] & ~BIT(x) & ALL) }
/* code: planSyncSet, confirm, tendSyncSet (R8) */
#define JOIN(i, x) \
  :: d_step { x != i && LEADSPRIMARY(i) && REQUIRED(i, x) && !(sure[i] & BIT(x)) && HASALL(i, x) -> \
       printf("%d writes sync with %d\n", i, x); kind[i] = SYNC; fate[i] = SENT; carried[i] = sure[i] | BIT(x); valid[i] = current[i] }
/* code: planSyncSet, tendSyncSet (R3) */
#define LEAVE(i, x) \
  :: d_step { x != i && LEADSPRIMARY(i) && (sure[i] & BIT(x)) && WISH(DEAD(x) || FORKED(i, x)) -> \
       printf("%d writes sync without %d\n", i, x); kind[i] = SYNC; fate[i] = SENT; carried[i] = sure[i] & ~BIT(x) & ALL; valid[i] = current[i] }
/* code: wantedSettings, follow: it streams from whomever it takes for the leader, which may be an old one */
#define CONNECT(i, x) \
  :: d_step { x != i && pg[i] == STANDBY && led[i] == 0 && kind[i] == 0 && from[i] != x && pg[x] == PRIMARY && !DEAD(x) && WISH(holder == x) && (tl[i] <= tl[x]) && ISPREFIX(wal[i], wal[x]) -> \
       printf("%d streams from %d\n", i, x); from[i] = x }
/* code: rejoin, divergence: the directory is torn until the end */
#define REWINDTO(i, x) \
  :: d_step { x != i && pg[i] != PRIMARY && !torn[i] && led[i] == 0 && kind[i] == 0 && pg[x] == PRIMARY && !DEAD(x) && WISH(holder == x) && holder != i && NOTOLDER(i, x) && NOTCOUNTED(i, x) && !ISPREFIX(wal[i], wal[x]) -> \
       printf("%d is being rewound to %d\n", i, x); wal[i] = FIRST(wal[i], COMMON(wal[i], wal[x])); from[i] = x; pg[i] = DOWN; REWINDS(i, x) }
#ifdef COUNTED_IS_REWOUND
#define NOTCOUNTED(i, x) 1
#else
/* code: canBeReplaced: whom etcd counts on is not taken apart while somebody else could be counted on instead */
#define NOTCOUNTED(i, x) (!(named & BIT(i)) || DEAD(3 - i - x))
#endif
#ifdef REWIND
#define REWINDS(i, x) torn[i] = 1
#else
#define REWINDS(i, x) tl[i] = tl[x]; SAMENUMBER(i, x); pg[i] = STANDBY
#endif
#ifdef NUMBERS
#define SAMENUMBER(i, x) number[i] = number[x]
#else
#define SAMENUMBER(i, x) skip
#endif
#ifdef CLONE_KEEPS_ID
#define NEWID(i) skip
#else
#define NEWID(i) stranger[i] = 1
#endif
#if defined(REWIND) || defined(LOSTVOLUME)
/* code: clone, follow: a copy is somebody else */
#define CLONEFROM(i, x) \
  :: d_step { x != i && torn[i] && pg[x] == PRIMARY && !DEAD(x) && led[i] == 0 && WISH(holder == x) -> \
       printf("%d is cloned from %d\n", i, x); torn[i] = 0; NEWID(i); wal[i] = wal[x]; tl[i] = tl[x]; SAMENUMBER(i, x); from[i] = NOBODY; pg[i] = STANDBY; require[i] = HOLD }
#else
#define CLONEFROM(i, x)
#endif
/* x has what i has not, or is torn: it cannot confirm anything before it is rewound */
#define FORKED(i, x) (torn[x] || !ISPREFIX(wal[x], wal[i]))
#define CONFIRMS(i, x) ((require[i] & BIT(x)) && !DEAD(x) && !FORKED(i, x))
#define WITH(i, x) ADDNAME(i, x) DROPNAME(i, x) JOIN(i, x) LEAVE(i, x) CONNECT(i, x) REWINDTO(i, x) CLONEFROM(i, x)
#ifdef PREFERRED
#define SHORT(i) 0
#else
#define SHORT(i) (!CONFIRMS(i, 0) && !CONFIRMS(i, 1) && !CONFIRMS(i, 2))
#endif

proctype instance(byte i)
#ifdef LIVENESS
  provided (!healed || !(dead & (1 << (_pid - 1))))
#endif
{
end: do
  /* world: a client writes */
  :: d_step { FAULTS && pg[i] == PRIMARY && LENGTH(wal[i]) < RECORDS -> printf("%d writes a record of term %d\n", i, tl[i]);
       wal[i] = wal[i] | (tl[i] << (2 * LENGTH(wal[i]))) }
  /* world: a standby flushes what it receives and confirms it */
  :: d_step { pg[i] == STANDBY && from[i] != NOBODY && pg[from[i]] == PRIMARY && !DEAD(from[i]) && tl[i] <= tl[from[i]] && ISPREFIX(wal[i], wal[from[i]]) &&
       (wal[i] != wal[from[i]] || tl[i] != tl[from[i]] || (!stranger[i] && told[3 * from[i] + i] != LENGTH(wal[i]))) ->
       printf("%d flushes and confirms to %d\n", i, from[i]);
       wal[i] = FIRST(wal[from[i]], LENGTH(wal[i]) + 1); tl[i] = tl[from[i]]; SAMENUMBER(i, from[i]);
       if :: !stranger[i] -> told[3 * from[i] + i] = LENGTH(wal[i]) :: else fi }
  /* world: Postgres releases a commit that every required name has confirmed */
  :: d_step { FAULTS && pg[i] == PRIMARY && !(require[i] & HOLD) ->
       if
       :: OWNWAITING(i, 1) -> q = 1
       :: !OWNWAITING(i, 1) && OWNWAITING(i, 2) -> q = 2
       :: !OWNWAITING(i, 1) && !OWNWAITING(i, 2) && OWNWAITING(i, 3) -> q = 3
       :: else -> q = 0
       fi;
       if
       :: q != 0 && CONFIRMED(i, 0, q) && CONFIRMED(i, 1, q) && CONFIRMED(i, 2, q) -> printf("%d ACKNOWLEDGES record %d of term %d\n", i, q, tl[i]);
            assert(AT(acked, q) == 0); NEWERHAS(0, i, q); NEWERHAS(1, i, q); NEWERHAS(2, i, q);
#ifdef LITERAL
            assert(tl[i] >= newest); newest = tl[i];
#endif
            SHOW(i, q); acked = acked | (tl[i] << (2 * (q - 1)))
       :: else
       fi; q = 0 }

  /* world: Postgres crashes */
  :: d_step { FAULTS && pg[i] == PRIMARY -> printf("%d: Postgres crashes\n", i); ENDPOSTGRES(i) }
  /* world: the pod starts anew; a write of the agent before it may still land */
  :: d_step { FAULTS && (led[i] || kind[i]) -> printf("%d: the pod starts anew\n", i); ENDPOSTGRES(i);
#ifdef LATE
       if :: fate[i] == SENT && valid[i] && lateKind[i] == 0 -> lateKind[i] = kind[i]; lateNames[i] = carried[i]; lateTerm[i] = led[i] :: else fi;
#endif
       ENDREIGN(i); NOWRITE(i) }
#ifdef LOSTVOLUME
  /* world: a volume is lost */
  :: d_step { !lost -> printf("%d loses its volume\n", i); lost = 1; ENDPOSTGRES(i); pg[i] = DOWN; wal[i] = 0; tl[i] = 0; from[i] = NOBODY; require[i] = HOLD; torn[i] = 1;
       ENDREIGN(i); NOWRITE(i) }
  /* world: and is replaced by a backup: an earlier prefix of what the leader has */
  :: d_step { torn[i] && pg[i] == DOWN && tl[i] == 0 && holder != i && !torn[holder] -> printf("%d has an old backup\n", i);
       torn[i] = 0; wal[i] = 0; tl[i] = 1; pg[i] = STANDBY;
#ifndef NAMES_OUTLIVE_DATA
       stranger[i] = 1
#endif
     }
#endif
#if defined(REWIND) || defined(LOSTVOLUME)
  /* code: planSyncSet, rankCandidates (R7): nobody names its old data id any more, so its new one can be named */
  :: d_step { stranger[i] && !torn[i] && holder != i && !(named & BIT(i)) && !((require[0] | require[1] | require[2]) & BIT(i)) -> printf("%d is known by its new data id\n", i);
       stranger[i] = 0; told[i] = 0; told[3 + i] = 0; told[6 + i] = 0 }
#endif
#ifdef REWIND
  /* world: pg_rewind ends well */
  :: d_step { torn[i] && from[i] != NOBODY && pg[from[i]] == PRIMARY && !DEAD(from[i]) && NOTOLDER(i, from[i]) -> printf("%d has been rewound\n", i);
       torn[i] = 0; wal[i] = wal[from[i]]; tl[i] = tl[from[i]]; SAMENUMBER(i, from[i]); pg[i] = STANDBY }
  /* world: pg_rewind is interrupted */
  :: d_step { FAULTS && torn[i] && from[i] != NOBODY -> printf("%d: pg_rewind is interrupted\n", i); from[i] = NOBODY }
#endif
#ifdef SNAPSHOT
  /* world: a snapshot of etcd is taken */
  :: d_step { i == 0 && !restored && oldTerm == 0 -> printf("a snapshot of etcd is taken\n"); oldHolder = holder; oldTerm = term; oldNamed = named; oldVacated = vacated }
  /* world: etcd is restored from it; revisions go on above all that were used */
  :: d_step { i == 0 && oldTerm != 0 && !restored -> printf("etcd is restored from the snapshot\n"); restored = 1;
#ifdef WIPED
       holder = NOBODY; named = 0; vacated = 0;
#else
       holder = oldHolder; term = oldTerm; named = oldNamed; vacated = oldVacated;
#endif
       WROTE }
#endif

  /* world: etcd carries a write out, or refuses it */
  :: d_step { fate[i] == SENT ->
       if
       :: MATCHES(i, kind[i], valid[i], led[i]) && (term < TERMS || kind[i] == SYNC || kind[i] == HANDOVEROFF) -> printf("etcd carries out write %d of %d\n", kind[i], i);
            LAND(i, kind[i], carried[i]); fate[i] = DONE; valid[i] = 1; won[i] = term
       :: else -> printf("etcd refuses write %d of %d\n", kind[i], i);
            /* code: absorbTransaction: refused */
            if
            :: led[i] && holder == i && term == led[i] && !vacated -> sure[i] = named; current[i] = 1; barrier[i] = 1
            :: led[i] && !(holder == i && term == led[i] && !vacated) -> ENDREIGN(i); ENDPOSTGRES(i)
            :: else
            fi;
            NOWRITE(i)
       fi }
  /* code: absorbTransaction, won */
  :: d_step { fate[i] == DONE -> printf("%d hears that write %d was done\n", i, kind[i]);
       if
       :: kind[i] == HANDOVEROFF -> ENDREIGN(i)
       :: else -> led[i] = won[i]; sure[i] = carried[i]; current[i] = valid[i]; barrier[i] = 0
       fi;
       NOWRITE(i) }
  /* code: absorbTransaction (R2): no definite answer */
  :: d_step { FAULTS && kind[i] != 0 -> printf("%d has no answer to write %d\n", i, kind[i]);
#ifdef NO_BARRIER
       current[i] = (fate[i] == DONE -> valid[i] : current[i]); if :: led[i] && kind[i] == SYNC && holder == i -> sure[i] = named :: else fi;
#else
       UNKNOWN(i);
#endif
       NOWRITE(i) }
#ifdef LATE
  /* code: absorbTransaction (R2): no definite answer, and it may still land */
  :: d_step { FAULTS && fate[i] == SENT && valid[i] && lateKind[i] == 0 -> printf("%d gives write %d up, which may land later\n", i, kind[i]);
       lateKind[i] = kind[i]; lateNames[i] = carried[i]; lateTerm[i] = led[i]; UNKNOWN(i); NOWRITE(i) }
  /* world: a write that was given up lands */
  :: d_step { lateKind[i] != 0 && MATCHES(i, lateKind[i], 1, lateTerm[i]) && (term < TERMS || lateKind[i] == SYNC || lateKind[i] == HANDOVEROFF) -> printf("write %d of %d lands late\n", lateKind[i], i);
#ifdef COMPARE_HOLDER
       if :: holder == i && term == lateTerm[i] && lateKind[i] == SYNC -> LAND(i, lateKind[i], lateNames[i]) :: else fi; lateKind[i] = 0; lateNames[i] = 0; lateTerm[i] = 0
#else
       LAND(i, lateKind[i], lateNames[i])
#endif
     }
#endif
  /* code: heartbeat, rewrite (R1, R2): what was given up can land no more */
  :: d_step { led[i] && kind[i] == 0 && holder == i && term == led[i] && !vacated && current[i] && (barrier[i] || (FAULTS && (valid[0] + valid[1] + valid[2] > 0 || ANYLATE))) -> printf("%d: a heartbeat\n", i);
       WROTE; current[i] = 1; barrier[i] = 0; sure[i] = named }
  /* code: heartbeat, absorbTransaction: refused, but an older write of this boot has landed */
  :: d_step { led[i] && kind[i] == 0 && holder == i && term == led[i] && !vacated && !current[i] -> printf("%d: a heartbeat is refused, its own write has landed\n", i); current[i] = 1; barrier[i] = 1; sure[i] = named }
  /* code: heartbeat, absorbTransaction, endReign, fenceIfDue: refused */
  :: d_step { led[i] && kind[i] == 0 && !(holder == i && term == led[i] && !vacated) -> printf("%d: a heartbeat is refused, it fences\n", i); ENDREIGN(i); ENDPOSTGRES(i) }
  /* code: resume (R2, R7): this data directory led last */
  :: d_step { led[i] == 0 && kind[i] == 0 && holder == i && USABLE(i) && NOTBEHIND(i) && WISH(!(vacated && pg[i] == DOWN && (named & ~dead & ALL))) -> printf("%d led last: takes the key again\n", i);
       vacated = 0; WROTE; led[i] = term; sure[i] = named; current[i] = 1; barrier[i] = 0 }

  /* code: lead, startAgain, holdsTerm (R10): in place, or after a restart */
  :: d_step { pg[i] == DOWN && led[i] && led[i] == tl[i] && kind[i] == 0 && !STALE(i) && STARTS(i) -> printf("%d starts as primary, term %d\n", i, led[i]);
       HOLDSALL(i, led[i]); pg[i] = PRIMARY; from[i] = NOBODY; BEGIN(i);
#ifdef START_WITHOUT_NAMES
       require[i] = 0
#else
       require[i] = NAMES(sure[i] & ~BIT(i) & ALL)
#endif
     }
  /* code: follow, lead (R10) */
  :: d_step { pg[i] == DOWN && kind[i] == 0 && STARTS(i) && !(led[i] && led[i] == tl[i]) -> printf("%d starts as standby\n", i); 
       pg[i] = STANDBY; from[i] = NOBODY }
  /* code: eligibility, takeOver, takeWrite (R4, R9): the receiver is gone first */
  :: d_step { pg[i] == STANDBY && led[i] == 0 && kind[i] == 0 && holder != i && MAYSTAND(i) && USABLE(i) && term < TERMS && NOTBEHIND(i) && WISH(DEAD(holder) || vacated) -> printf("%d stops receiving, takes the key\n", i);
       kind[i] = TAKE; fate[i] = SENT; valid[i] = 1; carried[i] = AFTERTAKE(i);
#ifdef READS
       heldBy[i] = (tl[i] == tl[holder] -> holder : NOBODY);
#endif
       from[i] = NOBODY }
#ifdef PROMOTE_BEFORE_TAKING
  /* broken: promoted while the key is not yet taken */
  :: d_step { fate[i] == SENT && kind[i] == TAKE && pg[i] == STANDBY -> printf("%d is promoted before it has the key\n", i); HOLDSALL(i, term + 1); pg[i] = PRIMARY; tl[i] = term + 1; require[i] = NAMES(carried[i]); NOTTOLD(i) }
#endif
  /* code: promote (R5): a leader that came up as a standby receives no more */
  :: d_step { led[i] && pg[i] == STANDBY && from[i] != NOBODY -> printf("%d stops receiving\n", i); from[i] = NOBODY }
  /* code: promote, namesAfterTakeover, namesFor (R4, R5) */
  :: d_step { led[i] && NEWTOME(i) && pg[i] == STANDBY && from[i] == NOBODY && kind[i] == 0 && !STALE(i) -> printf("%d is PROMOTED in term %d\n", i, led[i]);
       HOLDSALL(i, led[i]); pg[i] = PRIMARY; tl[i] = led[i]; NOTTOLD(i); BEGIN(i);
#ifdef PROMOTE_WITHOUT_NAMES
       require[i] = 0;
#else
       require[i] = NAMES(sure[i] & ~BIT(i) & ALL);
#endif
#ifdef NUMBERS
#ifdef POSTGRES_CHOOSES_NUMBER
       number[i]++;
#else
       number[i] = led[i];
#endif
       assert(!(used & BIT(number[i]))); used = used | BIT(number[i]);
#endif
     }
#ifdef RECEIVER_STAYS
  /* broken: its receiver goes on confirming to the one old primary */
  :: d_step { pg[i] == PRIMARY && pg[(i + 1) % 3] == PRIMARY && tl[(i + 1) % 3] < tl[i] && told[3 * ((i + 1) % 3) + i] < LENGTH(wal[(i + 1) % 3]) -> printf("%d still confirms to %d\n", i, (i + 1) % 3); told[3 * ((i + 1) % 3) + i] = LENGTH(wal[(i + 1) % 3]) }
  /* broken: and to the other */
  :: d_step { pg[i] == PRIMARY && pg[(i + 2) % 3] == PRIMARY && tl[(i + 2) % 3] < tl[i] && told[3 * ((i + 2) % 3) + i] < LENGTH(wal[(i + 2) % 3]) -> printf("%d still confirms to %d\n", i, (i + 2) % 3); told[3 * ((i + 2) % 3) + i] = LENGTH(wal[(i + 2) % 3]) }
#endif
#if !defined(NO_NEW_TERM) && !defined(PROMOTE_TWICE)
  /* code: promote (R5): this term is used up */
  :: d_step { LEADS(i) && led[i] == tl[i] && pg[i] == STANDBY && term < TERMS -> printf("%d leads, but its Postgres is a standby: a new term\n", i);
       kind[i] = NEWTERM; fate[i] = SENT; valid[i] = current[i]; carried[i] = sure[i]; from[i] = NOBODY }
#endif
#ifdef HANDOVER
  /* code: continueHandover, afterCrash */
  :: d_step { LEADS(i) && led[i] == tl[i] && pg[i] == DOWN && sure[i] != 0 && FAULTS -> printf("%d is down, hands over\n", i);
       kind[i] = HANDOVEROFF; fate[i] = SENT; valid[i] = current[i] }
#endif
#ifdef PREFERRED
  /* code: planSyncSet: durability preferred, and nobody is named */
  :: d_step { LEADSPRIMARY(i) && sure[i] == 0 && require[i] == HOLD -> printf("%d lets commits go on alone\n", i); require[i] = 0 }
#endif
#ifdef READS
  /* code: openToClients, opensWithPromotion: what clients then read may not get lost */
  :: d_step { led[i] && pg[i] == PRIMARY && led[i] == tl[i] && shut[i] && READABLE(i, 0) && READABLE(i, 1) && READABLE(i, 2) -> printf("%d lets clients in\n", i); shut[i] = 0;
       if :: began[i] >= 1 -> assert(AT(acked, 1) == 0 || AT(acked, 1) == AT(wal[i], 1)); SHOW(i, 1); acked = (acked & ~3) | (wal[i] & 3) :: else fi;
       if :: began[i] >= 2 -> assert(AT(acked, 2) == 0 || AT(acked, 2) == AT(wal[i], 2)); SHOW(i, 2); acked = (acked & ~12) | (wal[i] & 12) :: else fi;
       if :: began[i] >= 3 -> assert(AT(acked, 3) == 0 || AT(acked, 3) == AT(wal[i], 3)); SHOW(i, 3); acked = (acked & ~48) | (wal[i] & 48) :: else fi;
       began[i] = 0; heldBy[i] = NOBODY }
#endif
  WITH(i, 0) WITH(i, 1) WITH(i, 2)
  od
}

#ifdef LIVENESS
#define LOSTALL (DEAD(holder) && (named & ~dead & ~BIT(holder) & ALL) == 0)
#define SERVED(i, x) (!(require[i] & BIT(x)) || (!DEAD(x) && pg[x] == STANDBY && from[x] == i && ISPREFIX(wal[x], wal[i])))
#define SERVES(i) (!DEAD(i) && holder == i && led[i] == term && tl[i] == term && pg[i] == PRIMARY && !(require[i] & HOLD) && SERVED(i, 0) && SERVED(i, 1) && SERVED(i, 2))
#endif

init {
  d_step {
    pg[0] = PRIMARY; pg[1] = STANDBY; pg[2] = STANDBY; tl[0] = 1; tl[1] = 1; tl[2] = 1;
    from[0] = NOBODY; from[1] = 0; from[2] = 0; require[0] = 2; require[1] = HOLD; require[2] = HOLD;
    led[0] = 1; sure[0] = 2; current[0] = 1;
#ifdef NUMBERS
    number[0] = 1; number[1] = 1; number[2] = 1; used = 2;
#endif
#ifdef READS
    heldBy[0] = NOBODY; heldBy[1] = NOBODY; heldBy[2] = NOBODY;
#endif
  }
  atomic { run instance(0); run instance(1); run instance(2) }
#ifdef LIVENESS
  /* the faults end; at most one instance is gone for ever */
  if :: dead = 0 :: dead = 1 :: dead = 2 :: dead = 4 fi;
  d_step { printf("-- the faults end; gone for ever: mask %d\n", dead); healed = 1 };
  timeout -> printf("-- nothing more happens\n");
  assert(term == TERMS || LOSTALL || SERVES(0) || SERVES(1) || SERVES(2))
#endif
}
