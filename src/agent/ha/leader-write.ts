import type { LeaderValue, MemberRef, SyncValue } from '../../dcs/index.ts';
import { formatLsn } from '../../postgres/lsn.ts';
import type { Draft } from './draft.ts';
import type { Facts, LeaderWrite, Reign, Written } from './facts.ts';
import { includesMember } from './names.ts';

/** The write of the leader key that goes on with this reign (R1: every write of a leader is one). */
export function rewrite(
  draft: Draft,
  reign: Reign,
  kind: LeaderWrite['kind'],
  change: Partial<LeaderValue> = {},
): LeaderWrite {
  const { facts } = draft;
  const dataId = facts.volume.state === 'ready' ? facts.volume.dataId : '';
  return {
    kind,
    leader: {
      instance: facts.me.instance,
      dataId,
      bootId: facts.me.bootId,
      term: reign.term,
      timeline: reign.timeline,
      phase: 'leading',
      ...lsnOf(facts, reign),
      beat: reign.beat + 1,
      address: facts.me.address,
      members: memberList(facts),
      ...(reign.lossAccepted === true && reign.stage !== 'leading'
        ? { accepted: reign.why.slice(0, 300) }
        : {}),
      ...change,
    },
    expectLeader: reign.revision,
  };
}

/** How far this leader is; when its Postgres does not say so any more, how far it was known to be. */
function lsnOf(facts: Facts, reign: Reign): Pick<LeaderValue, 'lsn'> {
  const { observation: o } = facts.postgres;
  if (o?.flushLsn !== undefined && !o.inRecovery) return { lsn: formatLsn(o.flushLsn) };
  const last = facts.dcs.view.leader?.value;
  const isMine = last?.bootId === facts.me.bootId && last.term === reign.term;
  return isMine && last.lsn !== undefined ? { lsn: last.lsn } : {};
}

/**
 * Everybody who has announced data, and whoever was listed and has announced nothing since: an instance that is started
 * anew is away for a moment, and must not lose its right to stand if the leader is lost just then.
 */
function memberList(facts: Facts): MemberRef[] {
  const { view } = facts.dcs;
  const config = view.config?.value;
  const announced = [...view.members.values()].map(({ value: { instance, dataId } }) => ({
    instance,
    dataId,
  }));
  const away = (view.leader?.value.members ?? []).filter((m) => !view.members.has(m.instance));
  const known = [...announced, ...away].filter(
    (m) => m.instance !== facts.me.instance && (config?.members.includes(m.instance) ?? true),
  );
  return facts.volume.state === 'ready'
    ? [{ instance: facts.me.instance, dataId: facts.volume.dataId }, ...known]
    : known;
}

/** What others go by when a leader has written these values. */
export function writtenBy(leader: LeaderValue, sync: SyncValue | undefined, ttlMs: number): Written {
  return {
    members: leader.members,
    names: sync?.names ?? [],
    async: sync?.mode === 'async',
    ttlMs: leader.ttlMs ?? ttlMs,
  };
}

/** What others may go by when it is not known which of the two they see. */
export function eitherWritten(a: Written, b: Written): Written {
  const union = (x: readonly MemberRef[], y: readonly MemberRef[]) => [
    ...x,
    ...y.filter((m) => !includesMember(x, m)),
  ];
  return {
    members: union(a.members, b.members),
    names: union(a.names, b.names),
    async: a.async || b.async,
    ttlMs: Math.min(a.ttlMs, b.ttlMs),
  };
}
