import { describe, expect, it, vi } from 'vitest';
import { annotation } from '../api/names.ts';
import type { EndpointSlice } from '../kube/index.ts';
import { settle } from '../kube/testing/fake-clock.ts';
import { createLogger } from '../log/logger.ts';
import { claimed, type PodIdentity } from './kube-routing.ts';
import { Routing, type RoutingApi } from './routing.ts';

const leading = { role: 'primary', leads: { term: 6 } } as const;
const following = { role: 'standby', leads: undefined } as const;

/** A fake Kubernetes API with the term that owns the slice, and what was asked of it. */
class FakeApi implements RoutingApi {
  owner = 0;
  asked: string[] = [];
  fails = false;

  async claim(term: number): Promise<boolean> {
    this.asked.push(`claim ${term}`);
    if (this.fails) throw new Error('away');
    if (this.owner > term) return false;
    this.owner = term;
    return true;
  }

  async release(): Promise<void> {
    this.asked.push('release');
  }

  async setRole(role: string | undefined): Promise<void> {
    this.asked.push(`role ${role}`);
  }
}

function start() {
  const api = new FakeApi();
  const lines: string[] = [];
  const clock = { now: 0 };
  const log = createLogger({
    name: 'test',
    level: 'info',
    destination: { write: (line) => lines.push(line) },
  });
  const routing = new Routing(api, { log, now: () => clock.now, retryMs: 1 });
  const want = async (wanted: Parameters<Routing['want']>[0], ms = 0) => {
    clock.now += ms;
    routing.want(wanted);
    await settle();
    return api.asked.splice(0);
  };
  return { api, routing, want, lines };
}

describe('routing', () => {
  it('claims a term once, then the role, and releases at its end', async () => {
    const { want, routing } = start();
    expect(await want(leading)).toEqual(['claim 6', 'role primary']);
    expect(await want(leading, 4_999)).toEqual([]);
    expect(routing.problem).toBeUndefined();
    expect(await want({ role: 'primary', leads: { term: 7 } })).toEqual(['claim 7']);
    expect(await want(following)).toEqual(['release', 'role standby']);
    expect(await want(following, 59_999)).toEqual([]);
  });

  it('says the role again once a minute: somebody may have changed the label by hand', async () => {
    const { want } = start();
    expect(await want(following)).toEqual(['role standby']);
    expect(await want(following, 60_000)).toEqual(['role standby']);
    expect(await want(following, 1_000)).toEqual([]);
    expect(await want({ role: undefined, leads: undefined })).toEqual(['role undefined']);
    expect(await want({ role: undefined, leads: undefined }, 60_000)).toEqual(['role undefined']);
  });

  it('looks again every few seconds: the slice may have been emptied or made anew', async () => {
    const { api, want } = start();
    await want(leading);
    api.owner = 0;
    expect(await want(leading, 5_000)).toEqual(['claim 6']);
    expect(api.owner).toBe(6);
  });

  it('tells when a later term owns the slice, and goes on looking', async () => {
    const { api, want, routing, lines } = start();
    api.owner = 9;
    await want(leading);
    expect(routing.problem?.reason).toBe('ServiceOfLaterTerm');
    expect(await want(leading, 100)).toEqual([]);
    expect(await want(leading, 5_000)).toEqual(['claim 6']);
    expect(lines.filter((line) => line.includes('later term'))).toHaveLength(1);
    expect(lines.some((line) => line.includes('leads here"'))).toBe(false);
    api.owner = 0;
    await want(leading, 5_000);
    expect(routing.problem).toBeUndefined();
  });

  it('takes back a claim whose end it has not heard of', async () => {
    const { api, want, routing } = start();
    api.fails = true;
    // It is tried again for as long as it fails: how often depends on the machine.
    expect(new Set(await want(leading))).toEqual(new Set(['claim 6']));
    api.fails = false;
    routing.want(following);
    await vi.waitFor(() => expect(api.asked).toContain('release'));
  });
});

describe('the slice of -rw', () => {
  const pod: PodIdentity = {
    namespace: 'shops',
    cluster: 'shop',
    instance: 'shop-1',
    podUid: 'uid-1',
    address: '10.0.0.1',
    node: 'a',
  };
  const empty: EndpointSlice = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'shop-rw-leader', namespace: 'shops', resourceVersion: '5' },
    addressType: 'IPv4',
    endpoints: [],
  };

  it('points at the pod in its term, and is not written again while it does', () => {
    const slice = claimed(empty, pod, 6);
    if (typeof slice === 'string') throw new Error(slice);
    expect(slice).toMatchObject({
      metadata: { resourceVersion: '5', annotations: { [annotation.term]: '6' } },
      endpoints: [{ addresses: ['10.0.0.1'], targetRef: { uid: 'uid-1' } }],
    });
    expect(claimed(slice, pod, 6)).toBe('unchanged');
    expect(claimed(slice, pod, 7)).toMatchObject({ metadata: { annotations: { [annotation.term]: '7' } } });
    expect(claimed(slice, pod, 5)).toBe('later-term');
    expect(claimed({ ...slice, endpoints: [] }, pod, 6)).toEqual(slice);
    expect(claimed(slice, { ...pod, podUid: 'uid-2' }, 6)).not.toBe('unchanged');
  });
});
